import { describe, expect, it } from 'vitest';
import { PROFILES, readProfile, takes } from './profile.ts';

function mistakes(input: unknown): string[] {
  const read = readProfile(input);
  return read.ok ? [] : read.mistakes;
}

describe('a profile', () => {
  it('is known by its name', () => {
    for (const name of Object.keys(PROFILES)) expect(readProfile(name)).toMatchObject({ ok: true });
    expect(mistakes('video-poor')).toEqual([
      'must be one of any, text, image-basic, image-rich, video-basic, video-rich, megapixel, 300k, 600k, 1m, or an object',
    ]);
    expect(mistakes('toString')).toHaveLength(1);
  });

  it('as written out gets what it does not say from the one it is like', () => {
    const read = readProfile({ like: 'image-rich', maxBytes: '250KiB', image: { width: 800 }, types: ['IMAGE/JPEG '] });
    expect(read).toEqual({
      ok: true,
      profile: {
        ...PROFILES['image-rich'],
        maxBytes: 250 * 1024,
        image: { width: 800, height: 480 },
        types: ['image/jpeg'],
      },
    });
    expect(readProfile({})).toEqual({ ok: true, profile: PROFILES['300k'] });
  });

  it('gives itself back when it is read again', () => {
    for (const profile of Object.values(PROFILES)) expect(readProfile(profile)).toEqual({ ok: true, profile });
  });

  it('tells all mistakes at once, each with what would be right', () => {
    expect(
      mistakes({
        maxBytes: '3 GB',
        maxParts: 0,
        types: ['jpeg'],
        image: { width: 1.5, depth: 8 },
        video: 'QCIF',
        text: { charset: 'latin-1' },
        transferEncoding: 'hex',
        smil: true,
        subject: { length: -1 },
        size: 1,
      }).sort(),
    ).toEqual(
      [
        'size is unknown; known are like, maxBytes, maxParts, types, image, video, text, transferEncoding, smil, subject',
        'text.charset must be utf-8 or us-ascii',
        'subject.length must be a whole number from 0 to 1000',
        'image.depth is unknown; known are width, height',
        'video must be an object with width and height',
        'maxBytes must be a size from 4KiB to 30MiB, in bytes or like 300KiB',
        'maxParts must be a whole number from 1 to 100',
        'types must be a list of 1 to 200 media types like image/jpeg, image/* or */*',
        'image.width must be a whole number from 16 to 65535',
        'transferEncoding must be binary or base64',
        'smil must be required, optional or none',
      ].sort(),
    );
    expect(mistakes({ like: 'nothing' })).toEqual([expect.stringContaining('like must be one of')]);
    expect(mistakes(7)).toHaveLength(1);
    expect(mistakes(null)).toHaveLength(1);
    expect(mistakes([])).toHaveLength(1);
  });

  it('shows no more of a wrong key than a line can bear', () => {
    const [line = ''] = mistakes({ ['x\n'.repeat(100)]: 1 });
    expect(line).not.toContain('\n');
    expect(line.length).toBeLessThan(300);
  });
});

describe('what a profile takes', () => {
  it('is a type by its name, by its family, or anything', () => {
    expect(takes({ types: ['image/jpeg'] }, 'image/jpeg')).toBe(true);
    expect(takes({ types: ['image/jpeg'] }, 'image/jpeg2000')).toBe(false);
    expect(takes({ types: ['image/*'] }, 'image/png')).toBe(true);
    expect(takes({ types: ['image/*'] }, 'imagery/png')).toBe(false);
    expect(takes({ types: ['*/*'] }, 'application/x-anything')).toBe(true);
    expect(takes({ types: [] }, 'text/plain')).toBe(false);
  });
});
