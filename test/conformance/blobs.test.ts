/**
 * Content in an S3-compatible store, in front of both engines: the object store is s3rver, a server of another maker that knows
 * the protocol. It does not check signatures of version 4: that is done here, by Amazon's rules and not by our library. PostgreSQL needs POSTCARD_TEST_POSTGRES (see postgres.test.ts) and is left out without it.
 */
import { createHash, createHmac } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import S3rver from 's3rver';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Env, realEnv, testEnv } from '../../src/env.ts';
import { type Blobs, openS3, parseS3, probeBlobs, readS3, type S3Options, withBlobs } from '../../src/store/blobs.ts';
import { type ContentIndex, type Store, StoreUnavailable } from '../../src/store/contract.ts';
import type { PostgresStore } from '../../src/store/postgres/postgres.ts';
import { openContent } from '../../src/store/sqlite/content.ts';
import { ownDatabase, SERVER } from '../postgres.ts';
import { DAY, HOUR } from './desk.ts';
import { openEngineStore } from './engine-store.ts';
import { openMoving } from './postgres.harness.ts';

const START = Date.UTC(2026, 10, 24, 12);
const RETENTION = 7 * DAY;
const database = ownDatabase('blobs');
const KEYS = { accessKey: 'S3RVER', secret: 'S3RVER' };
const PHOTO = Buffer.from('a picture, as far as anybody here cares');
const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

// s3rver's own log is nobody's business, and it warns of what its libraries do.
process.noDeprecation = true;

interface Bucket {
  options: S3Options;
  /** Names of the objects that are there. */
  objects(): Promise<string[]>;
  stop(): Promise<void>;
}

async function bucket(): Promise<Bucket> {
  const directory = mkdtempSync(join(tmpdir(), 'postcard-s3-'));
  const server = new S3rver({
    ...{ address: '127.0.0.1', port: 0, silent: true, directory, resetOnClose: true },
    configureBuckets: [{ name: 'media' }],
  });
  const { port } = await server.run();
  const parsed = parseS3(`s3://media/postcard/content?endpoint=http://127.0.0.1:${port}&region=eu-central-1`);
  if (typeof parsed === 'string') expect.fail(parsed);
  return {
    options: { ...parsed, ...KEYS },
    async objects() {
      const answer = await fetch(`http://127.0.0.1:${port}/media?list-type=2`);
      return [...(await answer.text()).matchAll(/<Key>([^<]+)<\/Key>/g)].map((found) => found[1] as string);
    },
    async stop() {
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

interface World {
  engine: Store & ContentIndex;
  advance(ms: number): void;
  /** All that the sweep would do in time, with the collection of content. */
  sweep(store: Store): Promise<void>;
  close(): Promise<void>;
}

const worlds: { name: string; leftOut: boolean; open(): Promise<World> }[] = [
  {
    name: 'SQLite',
    leftOut: false,
    async open() {
      const dir = mkdtempSync(join(tmpdir(), 'postcard-blobs-'));
      const store = openEngineStore(join(dir, 'postcard.db'), { now: START, retentionMs: RETENTION });
      const file = openContent(join(dir, 'content.db'));
      const place = async (call: Parameters<typeof file.place>[0]) => file.place(call, store.now()) as never;
      return {
        engine: {
          ...store,
          putContent: async (hash, bytes) => file.put([{ hash, bytes }], store.now()),
          content: async (hash) => file.get(hash),
          contentAt: (hash) => place({ ask: 'at', hash }),
          contentUsed: (hash) => place({ ask: 'used', hash }),
          contentPlaced: (hash, at) => place({ ask: 'placed', hash, place: at }),
          placesLost: (limit) => place({ ask: 'lost', limit }),
          placesGone: (places) => place({ ask: 'gone', places }),
        },
        advance: (ms) => store.advance(ms),
        async sweep(swept) {
          file.collect(store.now(), '', () => false);
          await swept.sweep();
        },
        async close() {
          await store.close();
          file.close();
          rmSync(dir, { recursive: true });
        },
      };
    },
  },
  {
    name: 'PostgreSQL',
    leftOut: !SERVER,
    async open() {
      const h = await openMoving(database, { now: START, retentionMs: RETENTION });
      return {
        engine: h.store as PostgresStore,
        advance: h.advance,
        async sweep(swept) {
          while (await swept.sweep());
        },
        close: h.close,
      };
    },
  },
];

beforeAll(async () => {
  if (SERVER) await database.make();
});
afterAll(async () => {
  if (SERVER) await database.drop();
});

for (const { name, leftOut, open } of worlds) {
  describe.skipIf(leftOut)(`content in S3, with ${name}`, () => {
    const { log, random, clock } = realEnv({ level: 'silent' });
    /** Time for the rounds of deletions; real time for calls. */
    let ahead = 0;
    const env: Env = { log, random, clock: { ...clock, monotonic: () => clock.monotonic() + ahead } };
    let s3: Bucket;
    let world: World;
    let blobs: Blobs;
    let store: Store;

    beforeEach(async () => {
      [s3, world] = await Promise.all([bucket(), open()]);
      blobs = openS3(s3.options, env);
      store = withBlobs(world.engine, blobs, env);
    });
    afterEach(async () => {
      await world.close();
      await s3.stop();
    });

    const later = async (ms: number): Promise<void> => {
      world.advance(ms);
      ahead += 60_000;
      await world.sweep(store);
    };

    it('is put there once, and comes back', async () => {
      await store.putContent(hashOf(PHOTO), PHOTO);
      await store.putContent(hashOf(PHOTO), PHOTO);
      const names = await s3.objects();
      expect(names).toHaveLength(1);
      expect(names[0]).toMatch(
        new RegExp(`^postcard/content/${hashOf(PHOTO).slice(0, 2)}/${hashOf(PHOTO)}-[0-9a-f]{12}$`),
      );
      expect(Buffer.from((await store.content(hashOf(PHOTO))) ?? [])).toEqual(PHOTO);
      expect(await world.engine.content(hashOf(PHOTO))).toBeNull();
      expect(await store.content(hashOf(Buffer.from('another')))).toBeNull();
    });

    it('is one object where many put it at the same time', async () => {
      const others = Array.from({ length: 3 }, () => withBlobs(world.engine, blobs, env));
      await Promise.all(others.flatMap((one) => [1, 2].map(() => one.putContent(hashOf(PHOTO), PHOTO))));
      expect(await s3.objects()).toHaveLength(1);
      expect(Buffer.from((await store.content(hashOf(PHOTO))) ?? [])).toEqual(PHOTO);
    });

    it('is not given out when it was changed there, or is gone', async () => {
      await store.putContent(hashOf(PHOTO), PHOTO);
      const [key = ''] = await s3.objects();
      await blobs.put(key.replace('postcard/content/', ''), Buffer.from('something else'));
      expect(await store.content(hashOf(PHOTO))).toBeNull();
      await blobs.drop(key.replace('postcard/content/', ''));
      expect(await store.content(hashOf(PHOTO))).toBeNull();
    });

    it('that was put into the engine before stays readable, and is not put again', async () => {
      await world.engine.putContent(hashOf(PHOTO), PHOTO);
      await store.putContent(hashOf(PHOTO), PHOTO);
      expect(await s3.objects()).toEqual([]);
      expect(Buffer.from((await store.content(hashOf(PHOTO))) ?? [])).toEqual(PHOTO);
    });

    it('that was put into the engine before and was damaged there is whole again when somebody gives it again', async () => {
      await world.engine.putContent(hashOf(PHOTO), Buffer.from('a picture, as far as anybody here cares?'));
      expect(await store.content(hashOf(PHOTO))).toBeNull();
      await store.putContent(hashOf(PHOTO), PHOTO);
      expect(Buffer.from((await store.content(hashOf(PHOTO))) ?? [])).toEqual(PHOTO);
    });

    it('is put into the engine again by who knows of no object store', async () => {
      await store.putContent(hashOf(PHOTO), PHOTO);
      expect(await world.engine.content(hashOf(PHOTO))).toBeNull();
      await world.engine.putContent(hashOf(PHOTO), PHOTO);
      for (const one of [store, world.engine]) {
        expect(Buffer.from((await one.content(hashOf(PHOTO))) ?? [])).toEqual(PHOTO);
      }
      expect(await world.engine.placesLost(10)).toHaveLength(1);
    });

    it('is deleted a day after its last use, and comes back under another name', async () => {
      await store.putContent(hashOf(PHOTO), PHOTO);
      const [first] = await s3.objects();
      await later(DAY - HOUR);
      await store.putContent(hashOf(PHOTO), PHOTO);
      await later(2 * HOUR);
      expect(await s3.objects()).toEqual([first]);
      await later(DAY);
      await expect.poll(() => s3.objects()).toEqual([]);
      expect(await store.content(hashOf(PHOTO))).toBeNull();
      await store.putContent(hashOf(PHOTO), PHOTO);
      const [second] = await s3.objects();
      expect(second).not.toBe(first);
    });

    it('is deleted later where it could not be deleted at once', async () => {
      await store.putContent(hashOf(PHOTO), PHOTO);
      const broken: Blobs = { ...blobs, drop: () => Promise.reject(new StoreUnavailable('away')) };
      const [whole] = [store];
      store = withBlobs(world.engine, broken, env);
      await later(DAY + HOUR);
      await later(HOUR);
      expect(await world.engine.placesLost(10)).toHaveLength(1);
      store = whole;
      await later(HOUR);
      await expect.poll(() => world.engine.placesLost(10)).toEqual([]);
      expect(await s3.objects()).toEqual([]);
    });

    it('is refused, and nothing noted, while the object store is away', async () => {
      await store.putContent(hashOf(PHOTO), PHOTO);
      const away = withBlobs(world.engine, openS3({ ...s3.options, endpoint: 'http://127.0.0.1:2' }, env), env);
      const other = Buffer.from('another picture');
      await expect(away.putContent(hashOf(other), other)).rejects.toThrow(StoreUnavailable);
      await expect(away.content(hashOf(PHOTO))).rejects.toThrow(StoreUnavailable);
      expect(await world.engine.contentAt(hashOf(other))).toBeNull();
      expect(Buffer.from((await store.content(hashOf(PHOTO))) ?? [])).toEqual(PHOTO);
    });

    it('is refused with a wrong key, and where there is no such bucket', async () => {
      for (const wrong of [{ accessKey: 'NOBODY' }, { bucket: 'absent' }]) {
        const refused = openS3({ ...s3.options, ...wrong }, env);
        await expect(refused.put('x', PHOTO), JSON.stringify(wrong)).rejects.toThrow(StoreUnavailable);
        await expect(refused.get('x'), JSON.stringify(wrong)).rejects.toThrow(StoreUnavailable);
        expect(await probeBlobs(refused, env)).toMatch(/^the content store does not PUT \(40[34] \w+\)$/);
      }
      expect(await probeBlobs(blobs, env)).toBe('');
      expect(await s3.objects()).toEqual([]);
    });
  });
}

describe('an object store that misbehaves', () => {
  let server: Server | null = null;
  afterEach(() => server?.closeAllConnections());

  async function answering(
    answer: (nth: number) => number | null,
  ): Promise<{ blobs: Blobs; asked: () => number; env: ReturnType<typeof testEnv> }> {
    let asked = 0;
    server = createServer((request, response) => {
      const status = answer(++asked);
      request.resume();
      if (status === null) return;
      response.writeHead(status, { location: 'http://127.0.0.1:1/' }).end('<Error><Code>SlowDown</Code></Error>');
    });
    server.listen(0, '127.0.0.1');
    await new Promise((resolve) => server?.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    const env = testEnv();
    const options = { endpoint: `http://127.0.0.1:${port}`, bucket: 'media', prefix: '', region: 'x', ...KEYS };
    return { blobs: openS3(options, env), asked: () => asked, env };
  }

  it('is asked once more after a failure of its own, and not after a refusal', async () => {
    const once = await answering((nth) => (nth === 1 ? 503 : 200));
    await once.blobs.put('a', PHOTO);
    expect(once.asked()).toBe(2);
    const never = await answering(() => 503);
    await expect(never.blobs.put('a', PHOTO)).rejects.toThrow('the content store does not PUT (503 SlowDown)');
    const refused = await answering(() => 403);
    await expect(refused.blobs.put('a', PHOTO)).rejects.toThrow(StoreUnavailable);
    expect(refused.asked()).toBe(1);
  });

  it('is not followed elsewhere', async () => {
    const { blobs } = await answering(() => 307);
    await expect(blobs.get('a')).rejects.toThrow('307');
  });

  it('is not waited for without end', async () => {
    const { blobs, asked, env } = await answering(() => null);
    const put = blobs.put('a', PHOTO).catch((error: Error) => error);
    await expect.poll(asked).toBe(1);
    await env.clock.advance(15_000);
    await expect.poll(asked).toBe(2);
    await env.clock.advance(15_000);
    expect(await put).toMatchObject({ name: 'StoreUnavailable', message: expect.stringContaining('15000 ms') });
  });
});

describe('what is asked of an object store', () => {
  it('is signed by the rules of Amazon, its bytes included', async () => {
    const seen: { request: IncomingMessage; body: Buffer }[] = [];
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      seen.push({ request, body: Buffer.concat(chunks) });
      response.end();
    });
    server.listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    const options = { endpoint: `http://127.0.0.1:${port}`, bucket: 'media', prefix: 'a/b/', region: 'eu-north-1' };
    const blobs = openS3({ ...options, accessKey: 'AKID', secret: 'a secret' }, testEnv());
    await blobs.put('12/34-ab', PHOTO);
    await blobs.get('12/34-ab');
    await blobs.drop('12/34-ab');
    await new Promise((resolve) => server.close(resolve));
    expect(seen.map(({ request }) => `${request.method} ${request.url}`)).toEqual(
      ['PUT', 'GET', 'DELETE'].map((method) => `${method} /media/a/b/12/34-ab`),
    );
    expect(seen[0]!.body).toEqual(PHOTO);
    for (const { request, body } of seen) {
      expect(request.headers['x-amz-content-sha256']).toBe(hashOf(body));
      const given =
        /Credential=AKID\/(\d{8})\/eu-north-1\/s3\/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$/.exec(
          request.headers.authorization ?? '',
        );
      const [, day = '', signed = '', signature] = given ?? [];
      expect(signed.split(';')).toEqual(expect.arrayContaining(['host', 'x-amz-content-sha256', 'x-amz-date']));
      const headers = signed.split(';').map((name) => `${name}:${String(request.headers[name])}\n`);
      const canonical = [request.method, request.url, '', headers.join(''), signed, hashOf(body)].join('\n');
      const scope = `${day}/eu-north-1/s3/aws4_request`;
      const toSign = ['AWS4-HMAC-SHA256', request.headers['x-amz-date'], scope, hashOf(Buffer.from(canonical))].join(
        '\n',
      );
      const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
      const key = [day, 'eu-north-1', 's3', 'aws4_request'].reduce<string | Buffer>(hmac, 'AWS4a secret');
      expect(hmac(key, toSign).toString('hex')).toBe(signature);
    }
  });
});

describe('the URL of a content store', () => {
  it('names bucket, prefix, endpoint and region', () => {
    expect(parseS3('s3://media')).toEqual({
      endpoint: 'https://s3.us-east-1.amazonaws.com',
      bucket: 'media',
      prefix: '',
      region: 'us-east-1',
    });
    expect(parseS3('s3://my.media/a/b/?endpoint=http://minio:9000/&region=eu')).toEqual({
      endpoint: 'http://minio:9000',
      bucket: 'my.media',
      prefix: 'a/b/',
      region: 'eu',
    });
  });

  it('goes with the keys of the settings', () => {
    const settings = { contentStore: 's3://media', s3AccessKey: 'a', s3Secret: 'b' };
    expect(readS3(settings)).toMatchObject({ bucket: 'media', accessKey: 'a', secret: 'b' });
    expect(readS3({ ...settings, contentStore: null })).toBeNull();
    expect(readS3({ ...settings, contentStore: 's3://media?x=1' })).toBe('knows endpoint and region only');
  });

  it.each([
    ['media', /must be like s3:/],
    ['https://media', /must be like s3:/],
    ['s3://key:secret@media', /must not hold credentials/],
    ['s3://m', /must name a bucket/],
    ['s3://media?endpoint=ftp://x', /endpoint must be/],
    ['s3://media?key=x', /knows endpoint and region only/],
    ['s3://media/a%20b', /prefix must be/],
    ['s3://media?region=EU%20x', /region must be/],
  ])('is wrong as %s', (text, words) => {
    expect(parseS3(text)).toMatch(words);
  });
});
