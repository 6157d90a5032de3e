/**
 * Content bytes in an S3-compatible store, where the operator wants them there: the engine then keeps only where they lie.
 * `withBlobs` puts it in front of either engine; nobody else sees a difference.
 *
 * Promises: as with the engine's own bytes, content is stored (answered by the other side) before the accept that refers to it,
 * and checked against its hash when read. An object is never written again nor used anew after its content was dropped: each
 * storing gets a name of its own, so that a late deletion cannot hit bytes that came back. Deletions are noted in the engine first
 * and done afterwards, so they survive a crash. What was stored in the engine before stays readable.
 *
 * Fails: an object store that is away, slow or refuses makes a verb reject with StoreUnavailable (503 at the door); nothing was
 * stored then but, at worst, an object that nobody refers to.
 */
import { createHash } from 'node:crypto';
import { AwsClient } from 'aws4fetch';
import type { Env } from '../env.ts';
import { type ContentIndex, type Store, StoreUnavailable } from './contract.ts';

/** Where and as whom; `parseS3` reads the URL. */
export interface S3Options {
  endpoint: string;
  bucket: string;
  /** Before every name, '' or with a slash at its end. */
  prefix: string;
  region: string;
  accessKey: string;
  secret: string;
}

/** Objects by name. Each rejects with StoreUnavailable when it could not be done. */
export interface Blobs {
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** Null = there is none. */
  get(name: string): Promise<Uint8Array | null>;
  /** Done also where there is none. */
  drop(name: string): Promise<void>;
}

/** For one call, its body included. */
const CALL_MS = 15_000;
/** Calls of one verb: a connection that was closed while idle, a hiccup. */
const TRIES = 2;
/** Content is never larger; what is, is not ours. */
const MOST_BYTES = 256 * 1024 * 1024;
/** Between two rounds of deletions, and how many objects a round deletes. */
const DROP_MS = 10_000;
const DROPS = 50;

/**
 * Reads `s3://bucket/prefix?endpoint=https://...&region=...`; without endpoint it is Amazon's. A string is what is wrong.
 */
export function parseS3(text: string): Omit<S3Options, 'accessKey' | 'secret'> | string {
  const url = URL.parse(text);
  if (url === null || url.protocol !== 's3:')
    return 'must be like s3://bucket/prefix?endpoint=https://host&region=name';
  if (url.username !== '' || url.password !== '') return 'must not hold credentials: they have settings of their own';
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(url.hostname))
    return 'must name a bucket of 3 to 63 small letters, digits, dots and hyphens: s3://bucket';
  const unknown = [...url.searchParams.keys()].find((key) => key !== 'endpoint' && key !== 'region');
  if (unknown !== undefined) return 'knows endpoint and region only';
  const region = url.searchParams.get('region') ?? 'us-east-1';
  if (!/^[a-z0-9-]{1,40}$/.test(region)) return 'region must be a name like eu-central-1';
  const endpoint = url.searchParams.get('endpoint') ?? `https://s3.${region}.amazonaws.com`;
  const to = URL.parse(endpoint);
  if (to === null || !/^https?:$/.test(to.protocol) || to.search !== '' || to.username !== '') {
    return 'endpoint must be an http or https URL';
  }
  const prefix = decodeURIComponent(url.pathname).replace(/^\/+|\/+$/g, '');
  if (!/^[A-Za-z0-9/._-]{0,200}$/.test(prefix)) return 'prefix must be of letters, digits and / . _ -';
  return {
    endpoint: endpoint.replace(/\/+$/, ''),
    bucket: url.hostname,
    prefix: prefix === '' ? '' : `${prefix}/`,
    region,
  };
}

/** The settings of a content store as what they mean; null = there is none, a string is what is wrong. */
export function readS3(settings: {
  contentStore: string | null;
  s3AccessKey: string | null;
  s3Secret: string | null;
}): S3Options | null | string {
  const { contentStore, s3AccessKey, s3Secret } = settings;
  if (contentStore === null) return null;
  const parsed = parseS3(contentStore);
  return typeof parsed === 'string' ? parsed : { ...parsed, accessKey: s3AccessKey ?? '', secret: s3Secret ?? '' };
}

/** Puts, reads and deletes a probe: what is wrong, '' = nothing. */
export async function probeBlobs(blobs: Blobs, env: Pick<Env, 'random'>): Promise<string> {
  const name = `probe-${env.random.uuid()}`;
  const bytes = env.random.bytes(64);
  try {
    await blobs.put(name, bytes);
    const back = await blobs.get(name);
    await blobs.drop(name);
    return back !== null && Buffer.from(back).equals(bytes) ? '' : 'it does not give back what was put there';
  } catch (error) {
    if (error instanceof StoreUnavailable) return error.message;
    throw error;
  }
}

/** Objects in a bucket, by path (`endpoint/bucket/name`), which every S3-compatible store knows. */
export function openS3(options: S3Options, env: Pick<Env, 'clock'>): Blobs {
  const { endpoint, bucket, prefix, region, accessKey, secret } = options;
  // Its own tries would wait by a clock that is not ours.
  const client = new AwsClient({ accessKeyId: accessKey, secretAccessKey: secret, service: 's3', region, retries: 0 });

  /** Once, within CALL_MS; the answer's body is read whole. */
  async function once(method: string, name: string, bytes: Uint8Array | null) {
    const control = new AbortController();
    const limit = env.clock.setTimeout(() => control.abort(), CALL_MS);
    try {
      const hash = createHash('sha256')
        .update(bytes ?? '')
        .digest('hex');
      const answer = await client.fetch(`${endpoint}/${bucket}/${prefix}${name}`, {
        method,
        headers: { 'x-amz-content-sha256': hash },
        redirect: 'manual',
        signal: control.signal,
        ...(bytes === null ? {} : { body: bytes as Uint8Array<ArrayBuffer> }),
      });
      const length = Number(answer.headers.get('content-length') ?? 0);
      if (length > MOST_BYTES) {
        await answer.body?.cancel();
        throw new Error(`${length} bytes`);
      }
      return { status: answer.status, body: new Uint8Array(await answer.arrayBuffer()) };
    } finally {
      limit.cancel();
    }
  }

  async function call(method: string, name: string, bytes: Uint8Array | null, fine: number[]) {
    let why = '';
    for (let n = 1; n <= TRIES; n++) {
      try {
        const answer = await once(method, name, bytes);
        if (fine.includes(answer.status)) return answer;
        why = `${answer.status} ${codeOf(answer.body)}`.trim();
        // Refused is refused; a busy or broken one may do better.
        if (answer.status < 500 && answer.status !== 429) break;
      } catch (error) {
        why = reason(error);
      }
    }
    throw new StoreUnavailable(`the content store does not ${method} (${why})`);
  }

  return {
    async put(name, bytes) {
      await call('PUT', name, bytes, [200, 201, 204]);
    },
    async get(name) {
      const answer = await call('GET', name, null, [200, 404]);
      return answer.status === 404 ? absent(answer.body) : answer.body;
    },
    async drop(name) {
      await call('DELETE', name, null, [200, 202, 204, 404]);
    },
  };
}

/** A bucket that is not there is no content that is not there. */
function absent(body: Uint8Array): null {
  if (codeOf(body) === 'NoSuchBucket') throw new StoreUnavailable('the content store has no such bucket');
  return null;
}

function codeOf(body: Uint8Array): string {
  return /<Code>([A-Za-z0-9]{1,60})<\/Code>/.exec(Buffer.from(body).toString('latin1').slice(0, 2_000))?.[1] ?? '';
}

/** Fetch hides the reason in its cause. */
function reason(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  if ((error as Error).name === 'AbortError') return `no answer within ${CALL_MS} ms`;
  return cause?.code ?? cause?.message ?? (error as Error).message;
}

/** A store whose new content lies in `blobs`. Retention of what is no longer referred to goes with its sweep. */
export function withBlobs(engine: Store & ContentIndex, blobs: Blobs, env: Env): Store {
  let dropAt = Number.NEGATIVE_INFINITY;
  let dropping: Promise<void> | null = null;

  async function drop(): Promise<void> {
    try {
      for (const place of await engine.placesLost(DROPS)) {
        await blobs.drop(place);
        await engine.placesGone([place]);
      }
    } catch (error) {
      env.log.warn({ err: error }, 'content that nobody needs could not be deleted, will try again');
    }
  }

  return {
    ...engine,
    async putContent(hash, bytes) {
      const used = await engine.contentUsed(hash);
      // What was stored in the engine before may have been damaged there: it looks.
      if (used !== null) return used.place === null ? engine.putContent(hash, bytes) : undefined;
      const place = `${hash.slice(0, 2)}/${hash}-${Buffer.from(env.random.bytes(6)).toString('hex')}`;
      await blobs.put(place, bytes);
      const held = await engine.contentPlaced(hash, place);
      // Somebody was quicker with the same content.
      if (held.place !== place) await blobs.drop(place).catch(() => undefined);
    },
    async content(hash) {
      const at = await engine.contentAt(hash);
      if (at === null) return null;
      if (at.place === null) return engine.content(hash);
      const bytes = await blobs.get(at.place);
      if (bytes === null) return null;
      return createHash('sha256').update(bytes).digest('hex') === hash ? bytes : null;
    },
    async sweep() {
      const more = await engine.sweep();
      if (dropping === null && env.clock.monotonic() >= dropAt) {
        dropAt = env.clock.monotonic() + DROP_MS;
        dropping = drop().finally(() => {
          dropping = null;
        });
      }
      return more;
    },
    async close() {
      await dropping;
      await engine.close();
    },
  };
}
