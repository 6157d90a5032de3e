/**
 * From a claim to a submission: the spec's segments become parts whose names are safe on the wire, with the bytes of uploads
 * and links fetched from the store, and the customer's presentation is printed again for these parts. One preparation serves all claims of a spec and all lanes, one copy of the bytes serves
 * all specs that refer to them; both caches have a limit in bytes.
 *
 * Fails: content that was promised and is gone is a value (such a message must not be sent); a store that is away rejects.
 */
import { LRUCache } from 'lru-cache';
import { parseSender } from '../domain/address.ts';
import { fallbackName, namesOf, textPart, wireNames } from '../domain/content.ts';
import { cutText, type Pieces, type Shortener, shortens } from '../domain/links.ts';
import type { Segment, Spec, Tracking } from '../domain/message.ts';
import type { SpecRow } from '../domain/rows.ts';
import { printSmil, readSmil, SMIL_MAX, srcFaults } from '../domain/smil.ts';
import { type Part, type SmsSubmission, type Submission, transactionId } from '../domain/submission.ts';
import type { Claim } from '../store/contract.ts';

/** A spec ready to be submitted any number of times; shared by all claims of it, so carriers may cache by identity. */
export interface Prepared {
  sender: string;
  subject?: string;
  smil?: string;
  parts: Part[];
  campaignReferenceId?: string;
  resellerCode?: number;
  /** Parts that each message gets in words of its own: those with short links. */
  own?: OwnTexts;
}

/** `texts`: by their place among the parts. What stands there is as long as each message's own. */
interface OwnTexts {
  texts: { part: number; pieces: Pieces }[];
  tracking: Tracking;
  shortener: Shortener;
}

/** `words`: which content cannot be had or sent, for the message's story. `error`: of the error table, where it is another than 15025. */
export type PrepareResult = { ok: true; prepared: Prepared } | { ok: false; words: string; error?: number };

/** The bytes behind a hash, null when gone or damaged. */
type Content = (hash: string) => Promise<Uint8Array | null>;

/** Bytes of content kept by hash: a picture sent in ten thousand requests is read once. */
const CONTENT_CACHE = 64 * 1024 * 1024;
/** Prepared specs kept, and their bytes as if none were shared. */
const PREPARED_CACHE = 2_000;
const PREPARED_BYTES = 64 * 1024 * 1024;

/**
 * `prepareSpec` with a memory: what many claims ask for at the same time is made once, what is asked for a second time is kept. A
 * failure is not kept: the next claim looks again.
 */
export function createPreparer(content: Content, shortener?: Shortener): (spec: SpecRow) => Promise<PrepareResult> {
  const prepared = new LRUCache<number, { ok: true; prepared: Prepared }>({
    max: PREPARED_CACHE,
    maxSize: PREPARED_BYTES,
    sizeCalculation: ({ prepared }) => prepared.parts.reduce((sum, part) => sum + part.bytes.byteLength, 1),
  });
  const bytes = new LRUCache<string, Uint8Array>({
    maxSize: CONTENT_CACHE,
    sizeCalculation: (value) => value.byteLength + 1,
  });
  const once = new Set<number>();
  const making = new Map<number, Promise<PrepareResult>>();
  const fetching = new Map<string, Promise<Uint8Array | null>>();

  const fetchOnce: Content = async (hash) => {
    const kept = bytes.get(hash);
    if (kept) return kept;
    const value = await shared(fetching, hash, () => content(hash));
    if (value) bytes.set(hash, value);
    return value;
  };
  /**
   * Whether it was asked for before. Most specs have one message: what would be kept of them grows old for nobody, at the cost of
   * collecting it: 8 % of this thread's time when measured.
   */
  function again(no: number): boolean {
    if (once.delete(no)) return true;
    if (once.size >= PREPARED_CACHE) once.clear();
    once.add(no);
    return false;
  }

  return async (spec) => {
    const kept = prepared.get(spec.no);
    if (kept) return kept;
    const result = await shared(making, spec.no, () => prepareSpec(spec, fetchOnce, shortener));
    if (result.ok && again(spec.no)) prepared.set(spec.no, result);
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

/** A spec's parts in their order. Without a shortener its links stay as they are. Rejects only when `content` does. */
export async function prepareSpec(spec: SpecRow, content: Content, shortener?: Shortener): Promise<PrepareResult> {
  const body = JSON.parse(spec.body) as Spec;
  const segments: Segment[] = body.content.messageSegments;
  const made: (Part & { segment: number; wanted: { contentId?: string; fallback: string } })[] = [];
  const presentations: Given[] = [];
  const texts: OwnTexts['texts'] = [];
  for (let index = 0; index < segments.length; index++) {
    const segment = segments[index] as Segment;
    if (segment.type === 'SMIL') {
      presentations.push({ segment: index, smil: segment.smil });
      continue;
    }
    const { contentId } = segment;
    const given = contentId === undefined ? {} : { contentId };
    if (segment.type === 'TEXT') {
      const pieces = shortener ? piecesOf(segment.text, body) : null;
      if (pieces !== null) texts.push({ part: made.length, pieces });
      const text = pieces === null ? segment.text : ownText(pieces, ANY_MESSAGE, body, shortener);
      const part = textPart(text, 'utf-8');
      const wanted = { ...given, fallback: fallbackName(part.contentType, index + 1) };
      made.push({ ...part, contentId: '', segment: index, wanted });
      continue;
    }
    const media = spec.media.find((item) => item.segment === index);
    const bytes = media ? await content(media.hash) : null;
    if (!media || !bytes) return { ok: false, words: `content of segment ${index} is gone or damaged` };
    if (IS_SMIL.test(media.contentType)) {
      presentations.push({ segment: index, smil: new TextDecoder().decode(bytes), unseen: true });
      continue;
    }
    // A multipart of the customer's own would be taken apart on the way, and be parts that nobody has looked at.
    const contentType = /^\s*(?:multipart|message)\//i.test(media.contentType)
      ? 'application/octet-stream'
      : media.contentType;
    const wanted = { ...given, fallback: media.name || fallbackName(contentType, index + 1) };
    made.push({ contentId: '', contentType, bytes, segment: index, wanted });
  }
  const names = wireNames(made.map(({ wanted }) => wanted));
  const parts = made.map(({ contentType, bytes }, i): Part => ({ contentId: names[i] as string, contentType, bytes }));
  const bySegment = new Map(made.map(({ segment }, i) => [segment, parts[i] as Part]));
  const sender = parseSender(body.sender);
  const prepared: Prepared = { sender: sender.ok ? sender.sender : body.sender, parts };
  if (body.content.title) prepared.subject = body.content.title;
  const [given, second] = presentations;
  if (second !== undefined) return unusable(second, 'is a second presentation; a message has one');
  if (given !== undefined) {
    const smil = presentation(given, segments, spec.media, bySegment);
    if (typeof smil !== 'string' && smil !== null) return smil;
    if (smil !== null) prepared.smil = smil;
  }
  if (body.options?.campaignReferenceId) prepared.campaignReferenceId = body.options.campaignReferenceId;
  const resellerCode = body.options?.regional?.southKorea?.resellerCode;
  if (resellerCode !== undefined) prepared.resellerCode = resellerCode;
  if (shortener && texts.length > 0) prepared.own = { texts, tracking: body.tracking ?? {}, shortener };
  return { ok: true, prepared };
}

/** A token of this number belongs to no message, and is as long as any. */
const ANY_MESSAGE = 0;

/** A text cut at the links that the accept has put down; null = it has none. */
function piecesOf(text: string, { links, tracking }: Spec): Pieces | null {
  return links && shortens(tracking) ? cutText(text, links) : null;
}

function ownText(pieces: Pieces, no: number, { tracking = {} }: Pick<Spec, 'tracking'>, shortener?: Shortener): string {
  if (!shortener) throw new Error('no shortener');
  return shortener.textFor(pieces, no, tracking);
}

/** The parts as one message gets them. A group has one submission, so its links are those of its first member. */
function ownParts(parts: Part[], { texts, tracking, shortener }: OwnTexts, no: number): Part[] {
  const own = [...parts];
  for (const { part: at, pieces } of texts) {
    const part = parts[at] as Part;
    // In the charset that the carrier takes.
    const charset = /us-ascii/i.test(part.contentType) ? 'us-ascii' : 'utf-8';
    own[at] = { ...part, ...textPart(shortener.textFor(pieces, no, tracking), charset) };
  }
  return own;
}

const IS_SMIL = /^\s*application\/smil(?:\+xml)?\s*(?:;|$)/i;

/** A presentation of the customer's. `unseen`: it came as a link or an upload, so the door has not looked at it. */
interface Given {
  segment: number;
  smil: string;
  unseen?: true;
}

function unusable({ segment }: Given, words: string): PrepareResult {
  return { ok: false, error: UNSUPPORTED, words: `segment ${segment} ${words}` };
}

/** 15013 EC_MMS_CONTENT_BLOCKED_BY_OPERATOR: "content blocked or unsupported". */
const UNSUPPORTED = 15013;

/**
 * The customer's presentation, printed for these parts; null where it shows nothing: the carrier then makes one. What the door
 * would refuse now and an older version took counts as none; what the door has not seen is a failure.
 */
function presentation(
  given: Given,
  segments: readonly Segment[],
  media: SpecRow['media'],
  bySegment: ReadonlyMap<number, Part>,
): string | null | PrepareResult {
  if (given.unseen && given.smil.length > SMIL_MAX)
    return unusable(given, `is SMIL of more than ${SMIL_MAX} characters`);
  const read = readSmil(given.smil);
  if (!read.ok) return given.unseen ? unusable(given, read.faults[0] as string) : null;
  const names = namesOf(
    segments.map((one, index) => {
      if (index === given.segment) return { type: 'SMIL' };
      const name = media.find((item) => item.segment === index)?.name;
      return name ? { ...one, name } : one;
    }),
  );
  const [fault] = given.unseen && names.size > 0 ? srcFaults(read.smil, names.targetOf) : [];
  if (fault !== undefined) return unusable(given, fault);
  return printSmil(read.smil, (src) => {
    const target = names.targetOf(src);
    return typeof target === 'number' ? (bySegment.get(target) ?? null) : null;
  });
}

/**
 * The submission of one claim. The transaction id is the same for every attempt of a generation, so that a carrier which
 * got an earlier one drops the repetition (G6). `install` makes it unique over installations.
 */
export function submissionOf(claim: Claim, prepared: Prepared, install: string): Submission {
  const { own, ...shared } = prepared;
  return {
    ...shared,
    ...(own ? { parts: ownParts(prepared.parts, own, claim.members[0]?.no ?? claim.leader) } : {}),
    transactionId: transactionId(install, claim.leader, claim.generation),
    recipients: claim.members.map((member) => member.to),
    ...(claim.earliestAt === undefined ? {} : { earliestAt: claim.earliestAt }),
    validUntil: claim.validUntil,
  };
}

/** The SMS of one claim: what the message's spec says of its failover. The sender defaults to the message's. */
export function smsOf(claim: Claim, spec: SpecRow, install: string, shortener?: Shortener): SmsSubmission {
  const body = JSON.parse(spec.body) as Spec;
  const sms = body.options?.smsFailover;
  const [member] = claim.members;
  if (!sms || !member) throw new Error(`claim ${claim.leader} is no SMS of its spec`);
  const pieces = shortener ? piecesOf(sms.text, body) : null;
  const wanted = sms.sender || body.sender;
  const sender = parseSender(wanted);
  const resellerCode = (sms.regional ?? body.options?.regional)?.southKorea?.resellerCode;
  return {
    transactionId: transactionId(install, claim.leader, claim.generation),
    sender: sender.ok ? sender.sender : wanted,
    recipient: member.to,
    text: pieces === null ? sms.text : ownText(pieces, Math.abs(member.no), body, shortener),
    validUntil: claim.validUntil,
    ...(body.options?.campaignReferenceId ? { campaignReferenceId: body.options.campaignReferenceId } : {}),
    ...(resellerCode === undefined ? {} : { resellerCode }),
  };
}
