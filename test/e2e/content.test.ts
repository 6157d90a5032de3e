/**
 * Content end to end: uploaded, kept in an object store, fitted to a carrier's profile, on the handset; and what happens while
 * the object store is away. Real sockets, files and child processes; the carrier is the sandbox's MMSC under a name of its own.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import S3rver from 's3rver';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { documents, hostile, photo } from '../corpus/corpus.ts';
import { freePort } from '../torture/server.ts';
import { type Held, headersOf, onHandset, sourcesIn, startFrom } from './stand.ts';

const KIB = 1024;
const dir = mkdtempSync(join(tmpdir(), 'postcard-e2e-content-'));
process.noDeprecation = true;

let running: Running;
let s3: S3rver | null = null;
let s3Port = 0;

async function startS3(port: number): Promise<number> {
  s3 = new S3rver({
    ...{ address: '127.0.0.1', port, silent: true, directory: join(dir, 's3'), resetOnClose: false },
    configureBuckets: [{ name: 'media' }],
  });
  return (await s3.run()).port;
}

beforeAll(async () => {
  s3Port = await startS3(await freePort());
  const sandboxPort = await freePort();
  writeFileSync(
    join(dir, 'postcard.yaml'),
    `
carriers:
  - { name: north, type: mm7, url: "http://127.0.0.1:${sandboxPort}/mm7", profile: { like: image-rich, maxBytes: 40KiB } }
`,
  );
  const settings = {
    POSTCARD_SANDBOX_PORT: String(sandboxPort),
    POSTCARD_LOG_LEVEL: 'silent',
    POSTCARD_CONTENT_STORE: `s3://media/content?endpoint=http://127.0.0.1:${s3Port}`,
    POSTCARD_S3_ACCESS_KEY: 'S3RVER',
    POSTCARD_S3_SECRET: 'S3RVER',
  };
  running = await startFrom(sourcesIn(dir, settings));
});

afterAll(async () => {
  await running?.stop();
  await s3?.close();
  rmSync(dir, { recursive: true, force: true });
});

function api(path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${running.url}${path}`, { ...init, headers: { ...headersOf(), ...init.headers } });
}

function upload(name: string, contentType: string, bytes: Uint8Array): Promise<Response> {
  return api('/mms/1/content', {
    method: 'POST',
    body: bytes as Uint8Array<ArrayBuffer>,
    headers: { 'x-content-id': name, 'x-media-type': contentType, 'content-type': contentType },
  });
}

async function send(to: string, uploads: { name: string; contentType: string; bytes: Uint8Array }[]): Promise<string> {
  const messageSegments: object[] = [];
  for (const { name, contentType, bytes } of uploads) {
    const answer = await upload(name, contentType, bytes);
    expect(answer.status).toBe(200);
    const { uploadedContentId } = (await answer.json()) as { uploadedContentId: string };
    messageSegments.push({ type: 'UPLOADED_REFERENCE', uploadedContentId, contentId: name });
  }
  const message = { sender: '441134960000', destinations: [{ to }], content: { messageSegments } };
  const answer = await api('/mms/2/messages', { method: 'POST', body: JSON.stringify({ messages: [message] }) });
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { messages: { messageId: string }[] }).messages[0]!.messageId;
}

/** The parts of the one message that this handset gets. */
async function arrived(number: string): Promise<Held['parts']> {
  await expect.poll(() => onHandset(running, number), { timeout: 20_000 }).toHaveLength(1);
  return (await onHandset(running, number))[0]!.parts;
}

interface LogEntry {
  status: { id: number };
  error: { id: number };
}

async function logOf(messageId: string): Promise<LogEntry> {
  const answer = await api(`/mms/2/logs?messageId=${messageId}`);
  return ((await answer.json()) as { results: LogEntry[] }).results[0]!;
}

describe('content on its way', () => {
  it('is fitted to the profile of its carrier: pictures smaller and of a type that is taken, the rest as it is', async () => {
    const large = await photo(1200, 900).withMetadata({ orientation: 6 }).jpeg({ quality: 92 }).toBuffer();
    const alpha = await photo(300, 200).ensureAlpha(0.5).png().toBuffer();
    const card = documents()['card.vcf']!;
    await send('491700000001', [
      { name: 'large.jpg', contentType: 'image/jpeg', bytes: large },
      { name: 'alpha.png', contentType: 'image/png', bytes: alpha },
      { name: 'card.vcf', ...card },
    ]);
    const parts = (await arrived('491700000001')).filter(({ contentType }) => !contentType.includes('smil'));
    expect(parts.map(({ contentType }) => contentType.split(';')[0])).toEqual([
      'image/jpeg',
      'image/jpeg',
      'text/vcard',
    ]);
    const sum = parts.reduce((total, { size }) => total + size, 0);
    expect(sum).toBeLessThan(40 * KIB);
    expect(sum).toBeGreaterThan(15 * KIB);
    const [picture, , vcard] = await Promise.all(
      parts.map(async ({ url }) => Buffer.from(await (await fetch(url)).arrayBuffer())),
    );
    const meta = await sharp(picture).metadata();
    expect(meta.height).toBeGreaterThan(meta.width ?? 0);
    expect(Math.max(meta.width, meta.height)).toBeLessThanOrEqual(640);
    expect(vcard).toEqual(card.bytes);
  });

  it('ends with the error that says why where it cannot be fitted', async () => {
    const bomb = await send('491700000002', [{ name: 'b.png', ...(await hostile())['bomb.png']! }]);
    const pdf = await send('491700000003', [{ name: 'a.pdf', ...documents()['paper.pdf']! }]);
    const thick = {
      name: 'a.vcf',
      contentType: 'text/vcard',
      bytes: Buffer.from(`BEGIN:VCARD\n${'N:x\n'.repeat(12_000)}`),
    };
    const big = await send('491700000004', [thick]);
    for (const [id, error] of [
      [bomb, 15013],
      [pdf, 15013],
      [big, 15026],
    ] as const) {
      await expect.poll(async () => (await logOf(id)).status.id, { timeout: 60_000 }).toBe(100);
      expect((await logOf(id)).error.id).toBe(error);
    }
  });

  it('is refused with 503 while the object store is away, and taken again when it is back', async () => {
    await s3?.close();
    const bytes = await photo(50, 40, 9).jpeg().toBuffer();
    const refused = await upload('a.jpg', 'image/jpeg', bytes);
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toMatch(/^\d+$/);
    await startS3(s3Port);
    expect((await upload('a.jpg', 'image/jpeg', bytes)).status).toBe(200);
  });

  it('that cannot be read for a while waits for it and is not lost', async () => {
    const bytes = await photo(60, 40, 11).jpeg().toBuffer();
    const answer = await upload('late.jpg', 'image/jpeg', bytes);
    const { uploadedContentId } = (await answer.json()) as { uploadedContentId: string };
    await s3?.close();
    const content = { messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId, contentId: 'late.jpg' }] };
    const message = { sender: '441134960000', destinations: [{ to: '491700000005' }], content };
    const sent = await api('/mms/2/messages', { method: 'POST', body: JSON.stringify({ messages: [message] }) });
    expect(sent.status).toBe(200);
    const [{ messageId }] = ((await sent.json()) as { messages: [{ messageId: string }] }).messages;
    await startS3(s3Port);
    expect(await arrived('491700000005')).not.toEqual([]);
    expect((await logOf(messageId)).status.id).not.toBe(100);
  });
});
