/**
 * SubmitReq as bytes (3GPP TS 23.140, 8.7.1): a multipart/related of the SOAP envelope and the content, which is itself a
 * multipart/related of the presentation and the media parts.
 *
 * Promises: elements stand in the schema's order whatever the release; no value can break XML or MIME; the same submission
 * gives the same bytes but for the boundary. All that the messages of one content share is encoded once: per message only
 * the envelope is printed.
 *
 * Fails: nothing here fails.
 */
import type { Part, Submission } from '../../domain/submission.ts';
import { element, text, type XmlText } from '../../xml.ts';
import { type Frame, frameMultipart, type MimePartOut, writeMultipart } from '../mime.ts';
import { makeSmil, resolveSmil } from './smil.ts';
import { envelope, mm7, mm7Text, operation } from './soap.ts';

/** What of a carrier's settings shapes its SubmitReq. */
export interface SubmitOptions {
  namespace: string;
  version: string;
  vaspId?: string;
  vasId?: string;
  serviceCode?: string;
  transferEncoding: 'binary' | 'base64';
  /** Whether numbers carry a leading `+`; default true. */
  plus?: boolean;
  /** Added to every number. */
  numberSuffix?: string;
}

/** One request's body, in pieces: `closing` is shared by all messages of a content. */
export interface SubmitBody {
  contentType: string;
  opening: Buffer;
  closing: Uint8Array;
}

const ROOT_ID = 'mm7-submit@postcard';
const CONTENT_ID = 'content@postcard';
/** Between the content's parts, unless one of them holds it. Always the same, so that the headers are printed once. */
const CONTENT_BOUNDARY = '=_postcard';

interface Shared {
  sender: string;
  subject: string | undefined;
  smil: string | undefined;
  frame: Frame;
  identification: XmlText | null;
  /** What stands behind ExpiryDate. */
  rest: XmlText[];
}

/** Makes the encoder of one carrier. `boundary` gives a fresh one that nobody can guess. */
export function createSubmitEncoder(
  options: SubmitOptions,
  boundary: () => string,
): (submission: Submission) => SubmitBody {
  // By the identity of `parts`: the same array for all messages of one content, gone when dispatch lets go of it.
  const cache = new WeakMap<Part[], Shared>();
  const serviceCode = mm7Text('ServiceCode', options.serviceCode);

  function share(submission: Submission): Shared {
    const known = cache.get(submission.parts);
    const { sender, subject, smil } = submission;
    if (known && known.sender === sender && known.subject === subject && known.smil === smil) return known;
    const made: Shared = {
      sender,
      subject,
      smil,
      frame: frameContent(submission, options.transferEncoding, boundary()),
      identification: mm7(
        'SenderIdentification',
        mm7Text('VASPID', options.vaspId),
        mm7Text('VASID', options.vasId),
        sender !== '' && mm7('SenderAddress', address(sender, options)),
      ),
      rest: [
        element('mm7:DeliveryReport', null, text('true')),
        mm7Text('Subject', oneLine(subject ?? '')),
        element('mm7:Content', { href: `cid:${CONTENT_ID}` }),
      ].filter((child) => child !== null),
    };
    cache.set(submission.parts, made);
    return made;
  }

  return (submission) => {
    const { frame, identification, rest } = share(submission);
    const body = operation(
      'SubmitReq',
      options,
      identification,
      element('mm7:Recipients', null, mm7('To', ...submission.recipients.map((to) => address(to, options)))),
      serviceCode,
      mm7Text('ExpiryDate', instant(submission.validUntil)),
      ...rest,
    );
    const soap = envelope({ transactionId: oneLine(submission.transactionId), namespace: options.namespace, body });
    return {
      contentType: frame.contentType,
      opening: Buffer.from(frame.opening + soap, 'utf8'),
      closing: frame.closing,
    };
  };
}

function frameContent(submission: Submission, transferEncoding: 'binary' | 'base64', boundary: string): Frame {
  const { parts } = submission;
  const smil = submission.smil === undefined ? makeSmil(parts) : resolveSmil(submission.smil, parts);
  const start = presentationId(parts);
  const inner: MimePartOut[] = [
    {
      contentType: 'application/smil; charset=utf-8',
      contentId: start,
      name: start,
      encoding: transferEncoding === 'base64' ? 'base64' : '8bit',
      bytes: Buffer.from(smil, 'utf8'),
    },
    ...parts.map(
      (part): MimePartOut => ({
        contentType: part.contentType,
        contentId: part.contentId,
        name: part.contentId,
        encoding: transferEncoding,
        bytes: part.bytes,
      }),
    ),
  ];
  const content = writeMultipart({
    subtype: 'related',
    type: 'application/smil',
    start,
    parts: inner,
    boundary: CONTENT_BOUNDARY,
  });
  return frameMultipart({
    subtype: 'related',
    type: 'text/xml',
    start: ROOT_ID,
    boundary,
    first: { contentType: 'text/xml; charset=utf-8', contentId: ROOT_ID },
    parts: [
      {
        contentType: content.contentType,
        contentId: CONTENT_ID,
        encoding: transferEncoding === 'base64' ? '8bit' : 'binary',
        bytes: content.body,
      },
    ],
  });
}

/** A name that no part has. */
function presentationId(parts: readonly Part[]): string {
  const used = new Set(parts.map((part) => part.contentId.toLowerCase()));
  let id = 'presentation.smil';
  for (let n = 2; used.has(id); n++) id = `presentation_${n}.smil`;
  return id;
}

/** Numbers have 7 digits or more; short codes and names (there is no element for names) go as ShortCode. */
function address(value: string, options: SubmitOptions): XmlText {
  const digits = value.startsWith('+') ? value.slice(1) : value;
  if (!/^\d{7,15}$/.test(digits)) return element('mm7:ShortCode', null, text(oneLine(value)));
  const plus = options.plus === false ? '' : '+';
  return element('mm7:Number', null, text(`${plus}${digits}${options.numberSuffix ?? ''}`));
}

/** Control characters have no place in a one-line field; a blank keeps the words apart. */
function oneLine(value: string): string {
  return value.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
}

/** xs:dateTime in whole seconds of UTC; null for what is no instant. */
function instant(ms: number): string | null {
  return Math.abs(ms) <= 8.64e15 ? `${new Date(ms).toISOString().slice(0, 19)}Z` : null;
}
