/**
 * S13: names that try to be paths, wherever a customer or a stranger may give one: nothing is read or written but what is ours. How
 * such names travel on the wire is in `test/wire.test.ts`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type OpenDoor, openDoor } from '../api/door.ts';

const UP = [
  '../',
  '..\\',
  '%2e%2e%2f',
  '..%2f',
  '%2e%2e/',
  '..%5c',
  '..%252f',
  '..%c0%af',
  '....//',
  '..;/',
  '.\u2024/',
  '..\u2215',
];
const NAMES = [
  ...UP.flatMap((up) => [`${up.repeat(6)}etc/passwd`, `${up.repeat(3)}data/postcard.db`, `x/${up}content.db`]),
  ...['/etc/passwd', '//etc/passwd', '\\\\host\\share', 'C:\\Windows\\win.ini', 'C:content.db', 'file:///etc/passwd'],
  ...['.', '..', '...', '~', '~root/.ssh/id', '-rf', '|id', '$(id)', '`id`', ';id', '*', '?', '&&', 'a\tb', 'a b'],
  ...[
    'CON',
    'NUL',
    'aux.txt',
    'content.db',
    'postcard.db-wal',
    '.env',
    '.git/config',
    'postcard.yaml',
    '%00',
    'a%00.png',
    'x.db%00.jpg',
  ],
];

let door: OpenDoor;
const files = (): string[] => readdirSync(door.dataDir, { recursive: true }).map(String).sort();
const headerOf = (name: string): string => [...name].filter((char) => char >= ' ' && char <= '~').join('');

beforeAll(async () => {
  door = await openDoor({ now: Date.now });
});
afterAll(() => door?.close());

describe('S13: a name', () => {
  it('is tried in many ways', () => {
    expect(new Set(NAMES).size).toBe(NAMES.length);
    expect(NAMES.length).toBeGreaterThanOrEqual(65);
  });

  it('of content, an id, a bulk, an endpoint never becomes a file: none is made, none is read', {
    timeout: 120_000,
  }, async () => {
    await door.send({ messages: [] });
    const before = files();
    expect(before).toContain('content.db');
    for (const name of NAMES) {
      const upload = await door.ask('/mms/1/content', {
        method: 'POST',
        headers: { 'x-content-id': headerOf(name), 'x-media-type': 'text/plain' },
        body: 'bytes',
      });
      expect([name, upload.status]).toEqual([name, 200]);
      const { uploadedContentId } = JSON.parse(upload.body) as { uploadedContentId: string };
      expect(uploadedContentId).toMatch(/^[\w-]+$/);
      const sent = await door.send({
        options: { schedule: { bulkId: name } },
        messages: [
          {
            sender: 'Shop',
            destinations: [{ to: '41790000001', messageId: name }],
            content: {
              messageSegments: [
                { type: 'TEXT', text: 'hello', contentId: name },
                { type: 'UPLOADED_REFERENCE', uploadedContentId, contentId: `u${name}` },
              ],
            },
          },
        ],
      });
      expect([name, sent.status]).toEqual([name, 200]);
      const wrong = await door.send({
        messages: [
          {
            sender: 'Shop',
            destinations: [{ to: '41790000001' }],
            content: { messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId: name }] },
          },
        ],
      });
      expect([name, wrong.status]).toEqual([name, 400]);
    }
    expect(files()).toEqual(before);
  });

  it('in a path of the API is 404 or what it is called, and never a file', async () => {
    const secret = readFileSync('/etc/passwd', 'utf8').slice(0, 40);
    for (const name of NAMES) {
      for (const place of ['/', '/l/', '/mms/2/messages/', '/mms/1/inbox/content/', '/openapi.json/', '/admin/1/']) {
        // Not through a client that makes paths nice.
        const path = place + encodeURI(name).replaceAll('%25', '%').replaceAll(/[?#]/g, '_');
        const got = await door.raw(
          `GET ${path} HTTP/1.1\r\nhost: x\r\nauthorization: App door-key-0123456789abcdef\r\nconnection: close\r\n\r\n`,
        );
        const status = Number(got.slice(9, 12));
        // Messages were given these names above: those are found by them.
        expect([path, [200, 302, 400, 404, 429].includes(status)]).toEqual([path, true]);
        if (status === 200) expect(got).toContain('"messageId"');
        expect(got).not.toContain(secret);
        expect(got).not.toContain('SQLite format');
      }
    }
  });
});
