/**
 * From a claim to a submission: the spec's segments become parts whose names are safe on the wire, with the bytes of uploads
 * and links fetched from the store. Pure but for the `content` function it is given.
 */
import type { Segment, Spec } from '../domain/message.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Part, Submission } from '../domain/submission.ts';
import type { Claim } from '../store/contract.ts';

/** A spec ready to be submitted any number of times; shared by all claims of it, so carriers may cache by identity. */
export interface Prepared {
  sender: string;
  subject?: string;
  smil?: string;
  parts: Part[];
  campaignReferenceId?: string;
}

export type PrepareResult = { ok: true; prepared: Prepared } | { ok: false; words: string };

/** Fails (as a value) when content that was promised is gone or damaged: such a message must not be sent. */
export async function prepareSpec(
  spec: SpecRow,
  content: (hash: string) => Promise<Uint8Array | null>,
): Promise<PrepareResult> {
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
  const prepared: Prepared = { sender: body.sender, parts };
  if (body.content.title) prepared.subject = body.content.title;
  if (smil !== undefined) prepared.smil = smil;
  if (body.options?.campaignReferenceId) prepared.campaignReferenceId = body.options.campaignReferenceId;
  return { ok: true, prepared };
}

/** The submission of one claim. `install` makes the transaction id unique over installations. */
export function submissionOf(claim: Claim, prepared: Prepared, install: string): Submission {
  const generation = claim.generation === 0 ? '' : `-${claim.generation}`;
  return {
    ...prepared,
    transactionId: `${install}-${claim.leader}${generation}`,
    recipients: claim.members.map((member) => member.to),
    validUntil: claim.validUntil,
  };
}

/** Content ids: tolerant in, `[A-Za-z0-9._-]{1,64}` and unique out (carriers refuse spaces and the like). */
class Names {
  private readonly used = new Set<string>();

  give(wanted: string | undefined, fallback: string): string {
    const safe = (wanted || fallback).replace(/[^A-Za-z0-9._-]+/g, '_').slice(0, 64) || fallback;
    let name = safe;
    for (let n = 2; this.used.has(name.toLowerCase()); n++) name = `${safe.slice(0, 60)}_${n}`;
    this.used.add(name.toLowerCase());
    return name;
  }
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
