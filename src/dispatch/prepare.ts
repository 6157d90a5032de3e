/**
 * From a claim to a submission: the spec's segments become parts whose names are safe on the wire, with the bytes of uploads
 * and links fetched from the store. One preparation serves all claims of a spec and all lanes, one copy of the bytes serves
 * all specs that refer to them; both caches have a limit in bytes.
 *
 * Fails: content that was promised and is gone is a value (such a message must not be sent); a store that is away rejects.
 */
import { LRUCache } from 'lru-cache';
import { parseSender } from '../domain/address.ts';
import type { Segment, Spec } from '../domain/message.ts';
import type { SpecRow } from '../domain/rows.ts';
import { type Part, type Submission, transactionId } from '../domain/submission.ts';
import type { Claim } from '../store/contract.ts';

/** A spec ready to be submitted any number of times; shared by all claims of it, so carriers may cache by identity. */
export interface Prepared {
  sender: string;
  subject?: string;
  smil?: string;
  parts: Part[];
  campaignReferenceId?: string;
}

/** `words`: which content cannot be had, for the message's story. */
export type PrepareResult = { ok: true; prepared: Prepared } | { ok: false; words: string };

/** The bytes behind a hash, null when gone or damaged. */
type Content = (hash: string) => Promise<Uint8Array | null>;

/** Bytes of content kept by hash: a picture sent in ten thousand requests is read once. */
const CONTENT_CACHE = 64 * 1024 * 1024;
/** Prepared specs kept, and their bytes as if none were shared. */
const PREPARED_CACHE = 2_000;
const PREPARED_BYTES = 64 * 1024 * 1024;

/**
 * `prepareSpec` with a memory: what many claims ask for at the same time is made once, what was made lately is kept. A
 * failure is not kept: the next claim looks again.
 */
export function createPreparer(content: Content): (spec: SpecRow) => Promise<PrepareResult> {
  const prepared = new LRUCache<number, { ok: true; prepared: Prepared }>({
    max: PREPARED_CACHE,
    maxSize: PREPARED_BYTES,
    sizeCalculation: ({ prepared }) => prepared.parts.reduce((sum, part) => sum + part.bytes.byteLength, 1),
  });
  const bytes = new LRUCache<string, Uint8Array>({
    maxSize: CONTENT_CACHE,
    sizeCalculation: (value) => value.byteLength + 1,
  });
  const making = new Map<number, Promise<PrepareResult>>();
  const fetching = new Map<string, Promise<Uint8Array | null>>();

  const fetchOnce: Content = async (hash) => {
    const kept = bytes.get(hash);
    if (kept) return kept;
    const value = await shared(fetching, hash, () => content(hash));
    if (value) bytes.set(hash, value);
    return value;
  };
  return async (spec) => {
    const kept = prepared.get(spec.no);
    if (kept) return kept;
    const result = await shared(making, spec.no, () => prepareSpec(spec, fetchOnce));
    if (result.ok) prepared.set(spec.no, result);
    return result;
  };
}

/** One call of `make` for all who ask for `key` until it is done. Bounded by the callers: a lane's slots. */
function shared<Key, Value>(running: Map<Key, Promise<Value>>, key: Key, make: () => Promise<Value>): Promise<Value> {
  const known = running.get(key);
  if (known !== undefined) return known;
  const made = make().finally(() => running.delete(key));
  running.set(key, made);
  return made;
}

/** A spec's parts in their order. Rejects only when `content` does. */
export async function prepareSpec(spec: SpecRow, content: Content): Promise<PrepareResult> {
  const body = JSON.parse(spec.body) as Spec;
  const names = new Names();
  const parts: Part[] = [];
  let smil: string | undefined;
  const segments = body.content.messageSegments;
  for (let index = 0; index < segments.length; index++) {
    const segment = segments[index] as Segment;
    if (segment.type === 'SMIL') {
      smil ??= segment.smil;
      continue;
    }
    if (segment.type === 'TEXT') {
      const contentId = names.give(segment.contentId, `text_${index + 1}.txt`);
      parts.push({ contentId, contentType: 'text/plain; charset=utf-8', bytes: Buffer.from(segment.text, 'utf8') });
      continue;
    }
    const media = spec.media.find((item) => item.segment === index);
    const bytes = media ? await content(media.hash) : null;
    if (!media || !bytes) return { ok: false, words: `content of segment ${index} is gone or damaged` };
    const fallback = media.name || `part_${index + 1}${extension(media.contentType)}`;
    parts.push({ contentId: names.give(segment.contentId, fallback), contentType: media.contentType, bytes });
  }
  const sender = parseSender(body.sender);
  const prepared: Prepared = { sender: sender.ok ? sender.sender : body.sender, parts };
  if (body.content.title) prepared.subject = body.content.title;
  if (smil !== undefined) prepared.smil = withNames(smil, names.given);
  if (body.options?.campaignReferenceId) prepared.campaignReferenceId = body.options.campaignReferenceId;
  return { ok: true, prepared };
}

/**
 * The submission of one claim. The transaction id is the same for every attempt of a generation, so that a carrier which
 * got an earlier one drops the repetition (G6). `install` makes it unique over installations.
 */
export function submissionOf(claim: Claim, prepared: Prepared, install: string): Submission {
  return {
    ...prepared,
    transactionId: transactionId(install, claim.leader, claim.generation),
    recipients: claim.members.map((member) => member.to),
    validUntil: claim.validUntil,
  };
}

const NAME_MAX = 64;

/** Content ids: tolerant in, `[A-Za-z0-9._-]{1,64}` and unique out (carriers refuse spaces and the like). */
class Names {
  private readonly used = new Set<string>();
  /** What the customer calls a part, and what it is called on the wire. The first of a repeated name counts. */
  readonly given = new Map<string, string>();

  give(wanted: string | undefined, fallback: string): string {
    const safe = (wanted || fallback).replace(/[^A-Za-z0-9._-]+/g, '_').slice(0, NAME_MAX);
    let name = safe;
    for (let n = 2; this.used.has(name.toLowerCase()); n++) name = `${safe.slice(0, NAME_MAX - 4)}_${n}`;
    this.used.add(name.toLowerCase());
    if (wanted && !this.given.has(wanted)) this.given.set(wanted, name);
    return name;
  }
}

/** The presentation speaks of its parts as the customer named them: those that were renamed are renamed there too. */
function withNames(smil: string, given: ReadonlyMap<string, string>): string {
  if ([...given].every(([wanted, name]) => wanted === name)) return smil;
  return smil.replace(/(\ssrc\s*=\s*)(["'])(cid:)?([^"'<>]*)\2/g, (whole, head, quote, cid = '', src: string) => {
    const name = given.get(src) ?? given.get(unescaped(src));
    return name === undefined ? whole : `${head}${quote}${cid}${name}${quote}`;
  });
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function unescaped(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|apos);/g, (_, name: string) => ENTITIES[name] as string);
}

const EXTENSIONS: Record<string, string> = {
  'image/jpeg': '.jpg',
  'image/png': '.png',
  'image/gif': '.gif',
  'audio/amr': '.amr',
  'audio/mpeg': '.mp3',
  'video/mp4': '.mp4',
  'video/3gpp': '.3gp',
  'text/vcard': '.vcf',
  'application/pdf': '.pdf',
};

function extension(contentType: string): string {
  return EXTENSIONS[contentType.split(';')[0]?.trim().toLowerCase() ?? ''] ?? '.bin';
}
