/**
 * POST /mms/1/content: bytes now, for UPLOADED_REFERENCE segments later. An older endpoint with manners of its own: name and
 * type come in headers, its 400 has a shape of its own, a body that is too large is a 400 too.
 *
 * Promises: the answer comes after bytes and entry are committed; the same bytes are kept once; an id cannot be guessed and is
 * good for its account only.
 *
 * Fails: `body` rejects with StoreUnavailable (503) or a bug (500).
 */

import { isUtf8 } from 'node:buffer';
import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Env } from '../env.ts';
import type { Store } from '../store/contract.ts';
import { JSON_HEADERS, olderError, uploadError } from './errors.ts';
import { type Intake, isEncoded } from './messages.ts';

/** Characters of X-Content-Id and of X-Media-Type. */
const NAME_MAX = 255;
/** The longest that an upload can be asked to live: a year. */
const VALIDITY_MAX_MINUTES = 525_600;
/** `type/subtype` and parameters (RFC 9110, 8.3.1), but nothing with parts of its own. No class overlaps the next, so this cannot backtrack. */
const MEDIA_TYPE = /^(?!multipart\/|message\/)[\w!#$&^.+-]+\/[\w!#$&^.+-]+ ?(?:;[\x20-\x7e]*)?$/i;

const ENCODED = olderError('E415', { text: 'Send the body as it is, without Content-Encoding' });

interface UploadHead {
  account: number;
  name: string;
  mediaType: string;
  validityMinutes: number;
}

export interface ContentOptions {
  maxUploadBytes: number;
  /** Where X-Validity-Period-Minutes does not say otherwise. */
  validityMinutes: number;
  store: Store;
  env: Env;
}

/** The door for uploads: POST /mms/1/content. */
export function createContent(options: ContentOptions): Intake<UploadHead> {
  const { store, env } = options;
  return {
    limit: options.maxUploadBytes,
    tooLarge: uploadError('Maximum upload size exceeded'),
    head(headers, account) {
      if (isEncoded(headers)) return ENCODED;
      const name = text(headers, 'x-content-id');
      if (name === '') return missing('X-Content-Id');
      if (name.length > NAME_MAX) return tooLong('X-Content-Id');
      const mediaType = text(headers, 'x-media-type');
      if (mediaType === '') return missing('X-Media-Type');
      if (mediaType.length > NAME_MAX) return tooLong('X-Media-Type');
      if (!MEDIA_TYPE.test(mediaType)) return uploadError("Request header 'X-Media-Type' is not a valid media type");
      const minutes = headers['x-validity-period-minutes'];
      const validityMinutes = minutes === undefined ? options.validityMinutes : validity(String(minutes).trim());
      if (typeof validityMinutes === 'string') return uploadError(validityMinutes);
      return { account, name, mediaType, validityMinutes };
    },
    async body(head, bytes) {
      if (bytes.length === 0) return uploadError('Required request body is missing');
      const { account, name, mediaType, validityMinutes } = head;
      const digest = hash('sha256', bytes);
      await store.putContent(digest, bytes);
      const id = Buffer.from(env.random.bytes(32)).toString('hex').toUpperCase();
      const size = bytes.length;
      const validityMs = validityMinutes * 60_000;
      await store.putUpload({ account, id, name, hash: digest, contentType: mediaType, size, validityMs });
      env.log.info({ account, uploadedContentId: id, mediaType, size, validityMinutes }, 'uploaded');
      return { status: 200, headers: JSON_HEADERS, body: JSON.stringify({ uploadedContentId: id }) };
    },
  };
}

/** A header's value; '' = absent or blank. Node gives bytes as Latin-1, clients that write more than ASCII mean UTF-8. */
function text(headers: IncomingHttpHeaders, name: string): string {
  const value = String(headers[name] ?? '').trim();
  const bytes = Buffer.from(value, 'latin1');
  return isUtf8(bytes) ? bytes.toString('utf8') : value;
}

function missing(header: string) {
  return uploadError(`Required request header '${header}' for method parameter type String is not present`);
}

function tooLong(header: string) {
  return uploadError(`Request header '${header}' is longer than ${NAME_MAX} characters`);
}

/** Minutes, or what is wrong with them. */
function validity(value: string): number | string {
  const header = "Request header 'X-Validity-Period-Minutes'";
  if (!/^[+-]?\d+$/.test(value)) return `${header} must be a whole number`;
  const minutes = Number(value);
  if (minutes < 1) return `${header} must be greater than or equal to 1`;
  if (minutes > VALIDITY_MAX_MINUTES) return `${header} must be less than or equal to ${VALIDITY_MAX_MINUTES}`;
  return minutes;
}
