/**
 * SOAP with MM7 in it (3GPP TS 23.140, 8.7): envelopes read and printed for either side of the link: the carrier, the
 * listener and the sandbox's MMSC.
 *
 * Promises: reads whatever prefix, namespace (REL-5 and REL-6) and order of elements a peer uses, SOAP 1.1 and 1.2, with
 * attachments or without; prints well-formed XML whatever the values are.
 *
 * Fails: `readSoap` never throws, it answers `{ ok: false }`.
 */
import { childOf, element, readXml, text, textOf, XML_DECLARATION, type XmlElement, type XmlText } from '../../xml.ts';
import { headerValue, type MimePartIn, type MultipartLimits, readMultipart } from '../mime.ts';

export const SOAP_11 = 'http://schemas.xmlsoap.org/soap/envelope/';
export const SOAP_12 = 'http://www.w3.org/2003/05/soap-envelope';
/** What is answered to a peer that uses no MM7 namespace at all. */
export const MM7_NAMESPACE = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
export const MM7_VERSION = '6.8.0';

/** One SOAP message as a peer sent it. */
export interface SoapMessage {
  /** White space around it removed; null when missing or empty. */
  transactionId: string | null;
  /** Local name of the first element of Body: SubmitReq, DeliveryReportRsp, Fault ... */
  operation: string;
  body: XmlElement;
  /** SOAP_11 or SOAP_12. */
  soapNamespace: string;
  /** The peer's; MM7_NAMESPACE where it has none. */
  namespace: string;
  /** The peer's MM7Version; null when missing. */
  version: string | null;
  /** The other parts of a multipart, in order. */
  attachments: MimePartIn[];
}

/** `text` = the envelope as far as it could be had, for a last look at what is not XML. */
export type SoapResult = { ok: true; message: SoapMessage } | { ok: false; fault: string; text: string };

/** An envelope needs a few kB; a group of 200 recipients about 20. */
const ENVELOPE_BYTES = 256 * 1024;

/** Reads an HTTP body by its Content-Type (absent counts as XML). */
export function readSoap(
  contentType: string | undefined,
  body: Uint8Array,
  limits: Partial<MultipartLimits> = {},
): SoapResult {
  let xml = body;
  let attachments: MimePartIn[] = [];
  if (contentType !== undefined && /^\s*multipart\//i.test(contentType)) {
    const multipart = readMultipart(contentType, body, limits);
    if (!multipart.ok) return { ok: false, fault: multipart.fault, text: '' };
    const start = headerValue(contentType)
      .params.start?.trim()
      .replace(/^<(.*)>$/, '$1');
    // The root is the part that `start` names, else the first (RFC 2387).
    const found = start === undefined ? -1 : multipart.parts.findIndex((part) => part.contentId === start);
    const root = multipart.parts[Math.max(0, found)]!;
    xml = root.bytes;
    attachments = multipart.parts.filter((part) => part !== root);
  }
  const result = readXml(xml, { size: ENVELOPE_BYTES });
  if (!result.ok) return { ok: false, fault: result.fault, text: head(xml) };
  const { root } = result;
  const bodyElement = childOf(root, 'Body');
  const operation = bodyElement?.children[0];
  if (root.name !== 'Envelope' || !operation) return { ok: false, fault: 'not a SOAP envelope', text: head(xml) };
  const header = childOf(root, 'Header', 'TransactionID');
  const namespace = [header?.uri, operation.uri].find((uri) => uri && uri !== root.uri) || MM7_NAMESPACE;
  return {
    ok: true,
    message: {
      transactionId: header?.text.trim() || null,
      operation: operation.name,
      body: operation,
      soapNamespace: root.uri === SOAP_12 ? SOAP_12 : SOAP_11,
      namespace,
      version: textOf(operation, 'MM7Version') || null,
      attachments,
    },
  };
}

function head(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, 4096)).toString('utf8');
}

/** Status of any response, fault or error response. */
export interface Mm7Status {
  /** 0 = none was given. */
  code: number;
  text: string;
  /** Whatever the peer put into Details, as an element. */
  details: XmlElement | null;
}

/** The status of a message: from the response itself, from a fault's detail, or from the fault's own words. */
export function statusOf(message: SoapMessage): Mm7Status {
  const { body } = message;
  if (message.operation !== 'Fault') return readStatus(body);
  const detail = childOf(body, 'detail') ?? childOf(body, 'Detail');
  for (const child of detail?.children ?? []) {
    const status = readStatus(child.name === 'Status' ? detail! : child);
    if (status.code > 0) return status;
  }
  const words = textOf(body, 'faultstring') ?? textOf(body, 'Reason', 'Text') ?? '';
  return { code: 0, text: words, details: null };
}

function readStatus(element: XmlElement): Mm7Status {
  // Some peers leave the Status element out.
  const status = childOf(element, 'Status') ?? element;
  const code = textOf(status, 'StatusCode') ?? '';
  return {
    code: /^\d{1,5}$/.test(code) ? Number(code) : 0,
    text: textOf(status, 'StatusText') ?? '',
    details: childOf(status, 'Details') ?? null,
  };
}

/** A fault's side: the code's last word, prefix and sub-codes left out; '' when unknown. SOAP 1.2 words count as 1.1's. */
export function faultSide(message: SoapMessage): 'Client' | 'Server' | '' {
  const code = textOf(message.body, 'faultcode') ?? textOf(message.body, 'Code', 'Value') ?? '';
  const word = code.replace(/^.*:/, '').replace(/\..*$/, '').toLowerCase();
  if (word === 'server' || word === 'receiver') return 'Server';
  return word === '' ? '' : 'Client';
}

// --------------------------------------------------------------------------------------------------------------- writing

/** `<mm7:name>` around children; null when there are none. */
export function mm7(name: string, ...children: (XmlText | null | undefined | false)[]): XmlText | null {
  return children.some(Boolean) ? element(`mm7:${name}`, null, ...children) : null;
}

/** `<mm7:name>` around text; null for an absent or empty one. */
export function mm7Text(name: string, value: string | number | null | undefined): XmlText | null {
  return value === null || value === undefined || value === '' ? null : element(`mm7:${name}`, null, text(value));
}

/** The operation itself, MM7Version first, as the schema wants. */
export function operation(
  name: string,
  peer: { namespace: string; version: string },
  ...children: (XmlText | null | undefined | false)[]
): XmlText {
  return element(
    `mm7:${name}`,
    { 'xmlns:mm7': peer.namespace },
    element('mm7:MM7Version', null, text(peer.version)),
    ...children,
  );
}

/** Status as it stands in every response. */
export function status(code: number, words: string, ...details: (XmlText | null)[]): XmlText {
  return element(
    'mm7:Status',
    null,
    element('mm7:StatusCode', null, text(code)),
    element('mm7:StatusText', null, text(words)),
    mm7('Details', ...details),
  );
}

/** A SOAP fault with an RSErrorRsp or VASPErrorRsp in it, as TS 23.140 has it, in the peer's SOAP version. */
export function fault(
  side: 'Client' | 'Server',
  words: string,
  detail: XmlText,
  soapNamespace: string = SOAP_11,
): XmlText {
  if (soapNamespace === SOAP_12) {
    return element(
      'env:Fault',
      null,
      element('env:Code', null, element('env:Value', null, text(`env:${side === 'Client' ? 'Sender' : 'Receiver'}`))),
      element('env:Reason', null, element('env:Text', { 'xml:lang': 'en' }, text(words))),
      element('env:Detail', null, detail),
    );
  }
  return element(
    'env:Fault',
    null,
    element('faultcode', null, text(`env:${side}`)),
    element('faultstring', null, text(words)),
    element('detail', null, detail),
  );
}

/** A whole document, to be sent as UTF-8. */
export function envelope(options: {
  transactionId: string;
  namespace: string;
  soapNamespace?: string;
  body: XmlText;
}): string {
  const transaction = element(
    'mm7:TransactionID',
    { 'xmlns:mm7': options.namespace, 'env:mustUnderstand': 1 },
    text(options.transactionId),
  );
  return (
    XML_DECLARATION +
    element(
      'env:Envelope',
      { 'xmlns:env': options.soapNamespace ?? SOAP_11 },
      element('env:Header', null, transaction),
      element('env:Body', null, options.body),
    )
  );
}

/** The Content-Type of an envelope without attachments. */
export function soapType(soapNamespace: string): string {
  return soapNamespace === SOAP_12 ? 'application/soap+xml; charset=utf-8' : 'text/xml; charset=utf-8';
}
