import { describe, expect, it } from 'vitest';
import type { MessageRequest, Segment } from '../domain/message.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Claim } from '../store/contract.ts';
import { createPreparer, type Prepared, prepareSpec, submissionOf } from './prepare.ts';

type Media = SpecRow['media'];

function spec(segments: Segment[], more: Partial<MessageRequest> = {}, media: Media = [], no = 1): SpecRow {
  const body = { sender: 'Sender', content: { messageSegments: segments }, ...more };
  return { no, account: 1, sender: body.sender, body: JSON.stringify(body), acceptedAt: 0, media };
}

const none = async (): Promise<null> => null;

async function prepared(row: SpecRow, content: (hash: string) => Promise<Uint8Array | null> = none): Promise<Prepared> {
  const result = await prepareSpec(row, content);
  if (!result.ok) throw new Error(result.words);
  return result.prepared;
}

const upload = (contentId?: string): Segment => ({
  type: 'UPLOADED_REFERENCE',
  uploadedContentId: 'up',
  ...(contentId === undefined ? {} : { contentId }),
});

describe('a spec', () => {
  it('becomes parts in the order of its segments, with the bytes of each', async () => {
    const media: Media = [
      { segment: 1, hash: 'h1', contentType: 'image/png', name: 'my picture.png' },
      { segment: 3, hash: 'h3', contentType: 'image/JPEG; x=y', name: '' },
    ];
    const messageSegments: Segment[] = [
      { type: 'TEXT', text: 'Grüße 😀' },
      upload(),
      { type: 'SMIL', smil: '<smil/>', contentType: 'application/smil' },
      { type: 'LINK', contentUrl: 'https://x/' },
    ];
    const content = { title: 'Subject', messageSegments };
    const row = spec([], { content, options: { campaignReferenceId: 'camp' } }, media);
    const result = await prepared(row, async (hash) => Buffer.from(`bytes of ${hash}`));
    expect(result).toMatchObject({
      sender: 'Sender',
      subject: 'Subject',
      smil: '<smil/>',
      campaignReferenceId: 'camp',
    });
    expect(result.parts.map((part) => [part.contentId, part.contentType, Buffer.from(part.bytes).toString()])).toEqual([
      ['text_1.txt', 'text/plain; charset=utf-8', 'Grüße 😀'],
      ['my_picture.png', 'image/png', 'bytes of h1'],
      ['part_4.jpg', 'image/JPEG; x=y', 'bytes of h3'],
    ]);
  });

  it('gives the sender as carriers take it: digits without +, words as they are', async () => {
    expect((await prepared(spec([{ type: 'TEXT', text: 'x' }], { sender: '+441134960000' }))).sender).toBe(
      '441134960000',
    );
    expect((await prepared(spec([{ type: 'TEXT', text: 'x' }], { sender: 'My Shop' }))).sender).toBe('My Shop');
  });

  it.each<[string, Media, string]>([
    [
      'is not there',
      [{ segment: 0, hash: 'h', contentType: 'image/png', name: 'x' }],
      'content of segment 0 is gone or damaged',
    ],
    ['was never known', [], 'content of segment 0 is gone or damaged'],
  ])('is not sent when content %s', async (_, media, words) => {
    expect(await prepareSpec(spec([upload()], {}, media), none)).toEqual({ ok: false, words });
  });

  it('names its parts safely and without repetition, whatever the customer called them', async () => {
    const wanted = [
      'a b',
      'a b',
      'A_B',
      'ü',
      '😀',
      'x'.repeat(100),
      'x'.repeat(100),
      '../../etc/passwd',
      'a"<b>\r\nX: y',
      undefined,
      '',
    ];
    const row = spec(
      wanted.map((contentId) => ({ type: 'TEXT', text: 't', ...(contentId === undefined ? {} : { contentId }) })),
    );
    const names = (await prepared(row)).parts.map((part) => part.contentId);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._-]{1,64}$/);
    expect(new Set(names.map((name) => name.toLowerCase())).size).toBe(wanted.length);
    expect(names.slice(0, 3)).toEqual(['a_b', 'a_b_2', 'A_B_3']);
  });

  it('calls parts in the SMIL by their new names, and touches nothing else of it', async () => {
    const smil =
      '<smil><par><img src="cid:my pic"/><text src=\'a&amp;b\' alt="my pic"/><ref src="https://my pic"/></par></smil>';
    const row = spec([
      { type: 'SMIL', smil, contentType: 'application/smil' },
      { type: 'TEXT', text: '1', contentId: 'my pic' },
      { type: 'TEXT', text: '2', contentId: 'a&b' },
    ]);
    expect((await prepared(row)).smil).toBe(
      '<smil><par><img src="cid:my_pic"/><text src=\'a_b\' alt="my pic"/><ref src="https://my pic"/></par></smil>',
    );
  });

  it('leaves the SMIL as it is where no part was renamed', async () => {
    const smil = '<smil><text src = "plain"/></smil>';
    const row = spec([
      { type: 'SMIL', smil, contentType: 'application/smil' },
      { type: 'TEXT', text: '1', contentId: 'plain' },
    ]);
    expect((await prepared(row)).smil).toBe(smil);
  });
});

describe('the memory of preparations', () => {
  const media: Media = [{ segment: 0, hash: 'h', contentType: 'image/png', name: 'x' }];

  it('reads content once for all who ask at the same time, and for later specs with the same bytes', async () => {
    let reads = 0;
    const prepare = createPreparer(async () => {
      reads++;
      return Buffer.from('picture');
    });
    const rows = Array.from({ length: 50 }, (_, i) => spec([upload()], {}, media, 1 + (i % 10)));
    const results = await Promise.all(rows.map(prepare));
    await prepare(spec([upload()], {}, media, 99));
    expect(reads).toBe(1);
    expect(results.every((result) => result.ok)).toBe(true);
    // Shared by identity, so that carriers can keep what they make of it.
    expect(await prepare(rows[3] as SpecRow)).toBe(await prepare(rows[3] as SpecRow));
  });

  it('looks again after a failure of either kind', async () => {
    const answers: (() => Uint8Array | null)[] = [
      () => null,
      () => {
        throw new Error('away');
      },
      () => Buffer.from('x'),
    ];
    const prepare = createPreparer(async () => (answers.shift() as () => Uint8Array | null)());
    const row = spec([upload()], {}, media);
    expect((await prepare(row)).ok).toBe(false);
    await expect(prepare(row)).rejects.toThrow('away');
    expect((await prepare(row)).ok).toBe(true);
  });

  it('does not keep more bytes than it may', async () => {
    let reads = 0;
    const big = new Uint8Array(20 * 1024 * 1024);
    const prepare = createPreparer(async () => {
      reads++;
      return big;
    });
    const row = (no: number): SpecRow => spec([upload()], {}, [{ ...(media[0] as Media[0]), hash: `h${no}` }], no);
    for (let no = 1; no <= 6; no++) await prepare(row(no));
    expect(reads).toBe(6);
    await prepare(row(6));
    expect(reads).toBe(6);
    await prepare(row(1));
    expect(reads).toBe(7);
  });
});

describe('a submission', () => {
  const claim: Claim = {
    token: 1,
    leader: 42,
    spec: 1,
    members: [
      { no: 42, to: '491', key: null },
      { no: 43, to: '492', key: null },
    ],
    generation: 0,
    attempt: 1,
    notBeforeUs: 0,
    paced: false,
    validUntil: 5_000,
  };
  const parts: Prepared = { sender: 'S', parts: [] };

  it('names all members, the end of validity, and an id of this installation', () => {
    expect(submissionOf(claim, parts, 'inst')).toEqual({
      sender: 'S',
      parts: [],
      transactionId: 'inst-42',
      recipients: ['491', '492'],
      validUntil: 5_000,
    });
  });

  it('keeps its transaction id over attempts and tokens, and has a new one for each generation', () => {
    const ids = [
      claim,
      { ...claim, attempt: 7, token: 99 },
      { ...claim, generation: 1 },
      { ...claim, generation: 2 },
    ].map((one) => submissionOf(one, parts, 'inst').transactionId);
    expect(ids).toEqual(['inst-42', 'inst-42', 'inst-42-1', 'inst-42-2']);
  });
});
