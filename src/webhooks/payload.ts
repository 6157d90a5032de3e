/**
 * What is posted to a customer's URL: delivery reports as JSON or XML, and the Standard Webhooks signatures. Pure.
 *
 * Promises: JSON is exactly what GET /mms/2/reports answers; XML has the same members in the same order, lists as
 * `results/result`. Of a message that the first version of the API took, both have that version's shape. Characters that XML cannot carry (controls in a customer's callbackData) become U+FFFD.
 */
import { Webhook as Signer } from 'standardwebhooks';
import { type DeliveryReport, readForm } from '../domain/report.ts';
import { element, text, XML_DECLARATION, type XmlText } from '../xml.ts';

/** The body for an endpoint's form (`reportForm`); any media type but `application/xml` is JSON. */
export function formBody(reports: readonly DeliveryReport[], form: string): string {
  const { mediaType, older } = readForm(form);
  const told = older ? reports.map(olderReport) : reports;
  if (mediaType !== 'application/xml') return JSON.stringify({ results: told });
  const [root, item] = older ? ['MmsReportRequest', 'results'] : ['DeliveryReports', 'result'];
  const results = told.map((report) => element(item as string, null, ...members(report)));
  return XML_DECLARATION + element(root as string, null, element('results', null, ...results));
}

/**
 * A report as the webhook of the first version has it, members in the order of its published examples. Source: Infobip MMS API,
 * "Receive outbound MMS message report" (deprecated). `smsCount` counts MMS, as in their examples; a status says no `action`.
 */
function olderReport(report: DeliveryReport): object {
  const { bulkId, messageId, to, sentAt, doneAt, messageCount, mccMnc, callbackData, price, error, platform } = report;
  const { action: _, ...status } = report.status;
  const about = { bulkId, messageId, to, sentAt, doneAt, smsCount: messageCount, mccMnc, callbackData };
  return { ...about, price, status, error, ...platform };
}

function members(value: object): XmlText[] {
  const out: XmlText[] = [];
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue;
    const inner = typeof member === 'object' && member !== null ? members(member) : [text(String(member))];
    out.push(element(name, null, ...inner));
  }
  return out;
}

/**
 * The headers of Standard Webhooks for one try. The id stays the same over all tries, the timestamp is the try's.
 * @param secrets `whsec_` and base64 as the specification has it; any other text counts as the key's own bytes. Several, while
 *   one takes the other's place: a signature with each, and the receiver needs to know only one. None = no headers
 * @param atMs epoch ms
 */
export function signature(secrets: readonly string[], id: string, atMs: number, body: string): Record<string, string> {
  if (secrets.length === 0) return {};
  const at = new Date(atMs);
  return {
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(atMs / 1000)),
    'webhook-signature': secrets.map((secret) => signer(secret).sign(id, at, body)).join(' '),
  };
}

function signer(secret: string): Signer {
  if (secret.startsWith('whsec_')) {
    try {
      return new Signer(secret);
    } catch {
      // Not base64: a secret that only looks like one.
    }
  }
  return new Signer(new TextEncoder().encode(secret), { format: 'raw' });
}
