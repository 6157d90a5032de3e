/**
 * Delivery receipts: a deliver_sm that tells what became of a submission, by TLVs or as a text, and its message id in whatever form
 * the SMSC writes it there.
 *
 * Promises: only what the SMSC marks as a receipt (esm_class, or TLV receipted_message_id, which no handset can set) is one: a text
 * that looks like one is a text. Ids of submissions and receipts compare equal by `plainId` and the form that is configured or
 * learnt. Memory is bounded.
 *
 * Sources: SMPP 3.4, 5.2.12, 5.3.2.12, 5.3.2.35, appendix B; receipts as SMSCs of several vendors write them.
 */

import type { Alphabet } from '../../domain/sms.ts';
import type { CarrierReport, ReportKind } from '../../domain/submission.ts';
import { ESM, type ShortMessage, TAG, tlvNumber, tlvOf, tlvText } from './pdu.ts';
import { readText } from './text.ts';

/** How the id of a receipt relates to that of the answer to the submission, leading zeros and case apart. */
export type ReceiptIdForm =
  | 'as-is'
  /** The receipt's is hexadecimal, the answer's decimal. */
  | 'hex-to-dec'
  /** The receipt's is decimal, the answer's hexadecimal. */
  | 'dec-to-hex';

/** A receipt as it was read. */
export interface Receipt {
  /** As written; '' = it names none. */
  id: string;
  kind: ReportKind;
  error?: number;
  at?: number;
  words: string;
}

// --------------------------------------------------------------------------------------------------------------- states

/**
 * What the states mean here. Accepted and en route are not yet final. Deleted (by the operator), undeliverable and failed end it
 * without saying why: 810 delivery failed. Unknown: the SMSC cannot say itself (633).
 */
const STATES: Readonly<Record<string, { kind: ReportKind; error?: number }>> = {
  enroute: { kind: 'forwarded' },
  delivered: { kind: 'retrieved' },
  expired: { kind: 'expired' },
  deleted: { kind: 'rejected', error: 810 },
  undeliverable: { kind: 'unreachable', error: 810 },
  accepted: { kind: 'forwarded' },
  unknown: { kind: 'indeterminate', error: 633 },
  rejected: { kind: 'rejected', error: 632 },
};
type StateName =
  | 'enroute'
  | 'delivered'
  | 'expired'
  | 'deleted'
  | 'undeliverable'
  | 'accepted'
  | 'unknown'
  | 'rejected';

/** message_state (SMPP 3.4, 5.2.28; 0 and 9 are SMPP 5's scheduled and skipped). */
const BY_NUMBER: readonly StateName[] = [
  'enroute',
  'enroute',
  'delivered',
  'expired',
  'deleted',
  'undeliverable',
  'accepted',
  'unknown',
  'rejected',
  'rejected',
];

/** By the first letters of the word behind `stat:`; longer ones first where one begins like another. */
const BY_WORD: readonly [RegExp, StateName][] = [
  [/^deliv/, 'delivered'],
  [/^dlvrd/, 'delivered'],
  [/^success/, 'delivered'],
  [/^expir/, 'expired'],
  [/^delet/, 'deleted'],
  [/^undel/, 'undeliverable'],
  [/^fail/, 'undeliverable'],
  [/^accep/, 'accepted'],
  [/^acked/, 'accepted'],
  [/^enrou/, 'enroute'],
  [/^buffer/, 'enroute'],
  [/^sched/, 'enroute'],
  [/^reject/, 'rejected'],
  [/^skip/, 'rejected'],
  [/^unkno/, 'unknown'],
];

/** GSM MAP errors that are ids of the error table too (network_error_code of network type 3). */
const GSM_ERRORS = new Set([1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 20, 21, 24, 27, 31, 32, 33, 34, 35, 36, 51, 71]);
const GSM_NETWORK = 3;

// -------------------------------------------------------------------------------------------------------------- reading

/** Reads a delivered message as a receipt; null = it is none. */
export function readReceipt(message: ShortMessage, encoding: { default: Alphabet; packed: boolean }): Receipt | null {
  const type = message.esmClass & ESM.typeMask;
  const named = tlvText(message, TAG.receiptedMessageId);
  if (type !== ESM.receipt && type !== ESM.intermediate && named === undefined) return null;
  const text = readText(message, encoding).text ?? '';
  const fields = readFields(text);
  const number = tlvNumber(message, TAG.messageState);
  const byTlv = number === undefined ? undefined : BY_NUMBER[number];
  const word = fields.stat?.toLowerCase() ?? '';
  const byText = BY_WORD.find(([pattern]) => pattern.test(word))?.[1];
  // A state that says more than "on its way" wins over one that does not: some SMSCs leave the TLV at 1.
  const state = [byTlv, byText].find((one) => one !== undefined && one !== 'enroute') ?? byTlv ?? byText;
  const meaning = STATES[state ?? 'enroute']!;
  const intermediate = type === ESM.intermediate && meaning.kind !== 'retrieved';
  const gsm = gsmError(message);
  const failed = meaning.error !== undefined;
  const at = readDate(fields['done date']);
  const words = [
    fields.stat ?? (number === undefined ? 'no state' : `state ${number}`),
    fields.err === undefined ? '' : `err ${fields.err}`,
    gsm === null ? '' : `network error ${gsm.type}/${gsm.code}`,
  ];
  return {
    id: named || fields.id || '',
    kind: intermediate ? 'forwarded' : meaning.kind,
    ...(failed && !intermediate ? { error: gsm?.error ?? meaning.error! } : {}),
    ...(at === undefined ? {} : { at }),
    words: words
      .filter((one) => one !== '')
      .join(', ')
      .replace(/[^\x20-\x7e]+/g, ' ')
      .slice(0, 200),
  };
}

/** Names of the fields as they are written, to ours. */
const FIELDS =
  /(?:^|[\s,;])(id|msgid|message[ _]?id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat(?:us)?|state|err(?:or)?|text)\s*[:=]/gi;
const NAMES: Readonly<Record<string, string>> = {
  msgid: 'id',
  messageid: 'id',
  status: 'stat',
  state: 'stat',
  error: 'err',
  submitdate: 'submit date',
  donedate: 'done date',
};
/** Of a receipt's text that is looked at. */
const TEXT_MAX = 1_024;

/** `id:.. sub:.. dlvrd:.. submit date:.. done date:.. stat:.. err:.. text:..` in any case, order and spelling. */
function readFields(text: string): Partial<Record<string, string>> {
  const head = text.slice(0, TEXT_MAX);
  const marks = [...head.matchAll(FIELDS)];
  const fields: Partial<Record<string, string>> = {};
  for (const [i, mark] of marks.entries()) {
    const name = mark[1]!.toLowerCase().replace(/[ _]/g, '');
    const ours = NAMES[name] ?? name;
    // What stands behind is the customer's.
    if (ours === 'text') break;
    const value = head.slice(mark.index + mark[0].length, marks[i + 1]?.index ?? head.length).trim();
    fields[ours] ??= ours === 'id' || ours === 'stat' || ours === 'err' ? (/^[^\s,;]*/.exec(value)?.[0] ?? '') : value;
  }
  return fields;
}

/** YYMMDDhhmm[ss] or YYYYMMDDhhmm[ss]; the zone is not told, so UTC is as good as any. */
function readDate(text: string | undefined): number | undefined {
  const match = /^(\d{2}|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?$/.exec(text ?? '');
  if (!match) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1).map((part) => Number(part ?? 0));
  if (month! < 1 || month! > 12 || day! < 1 || day! > 31) return undefined;
  return Date.UTC(year! < 100 ? 2000 + year! : year!, month! - 1, day!, hour!, minute!, second!);
}

function gsmError(message: ShortMessage): { type: number; code: number; error?: number } | null {
  const value = tlvOf(message, TAG.networkErrorCode);
  if (value?.length !== 3) return null;
  const code = value[1]! * 256 + value[2]!;
  if (code === 0) return null;
  const known = value[0] === GSM_NETWORK && GSM_ERRORS.has(code);
  return { type: value[0]!, code, ...(known ? { error: code } : {}) };
}

// ------------------------------------------------------------------------------------------------------------------ ids

/** An id without what SMSCs add or leave out at will: case and, where it is a number, leading zeros. */
export function plainId(id: string): string {
  const bare = id.trim();
  return /^[0-9a-f]+$/i.test(bare) ? bare.toLowerCase().replace(/^0+(?=.)/, '') : bare;
}

/** A receipt's id in the form of the submission's answer. */
export function receiptRef(id: string, form: ReceiptIdForm): string {
  const plain = plainId(id);
  // Longer ones are no numbers of a counter.
  if (plain.length > 40) return plain;
  if (form === 'hex-to-dec' && /^[0-9a-f]+$/.test(plain)) return BigInt(`0x${plain}`).toString(10);
  if (form === 'dec-to-hex' && /^\d+$/.test(plain)) return BigInt(plain).toString(16);
  return plain;
}

/** Submissions remembered to learn from, and receipts that may have to be told again. */
const RECENT = 20_000;
const UNMATCHED = 1_000;
/** Receipts that must agree before numbers are converted: with one recipient and small numbers one may match by chance. */
const AGREEING = 2;
/** As it is comes first: whatever else an id might be. */
const FORMS = ['as-is', 'hex-to-dec', 'dec-to-hex'] as const satisfies ReceiptIdForm[];

/**
 * Learns how receipts write ids where the configuration does not say: by those whose id, read in one of the forms, is that of a
 * recent submission to the same number. What it has learnt lasts as long as the process, so it says what to configure.
 */
export class ReceiptIds {
  private form: ReceiptIdForm | null = null;
  private readonly recent = new Map<string, string>();
  /** Told as they are while nothing was learnt; told again in the right form afterwards. */
  private unmatched: CarrierReport[] = [];
  private readonly votes = new Map<ReceiptIdForm, Set<string>>();
  private readonly learnt: (form: ReceiptIdForm) => void;
  private readonly fixed: boolean;

  /** `learnt` is called when the form was found, or found to be another one. */
  constructor(form: ReceiptIdForm | 'auto', learnt: (form: ReceiptIdForm) => void) {
    this.learnt = learnt;
    if (form !== 'auto') this.form = form;
    this.fixed = form !== 'auto';
  }

  /**
   * A submission was taken under `id` (as `plainId` gives it). Returns receipts that are to be told (again): one that came before its
   * answer, under the id that this answer shows to be right, and all that wait where it settles how ids are written.
   */
  sent(id: string, recipient: string): CarrierReport[] {
    if (this.fixed) return [];
    this.recent.set(id, recipient);
    if (this.recent.size > RECENT) this.recent.delete(this.recent.keys().next().value as string);
    if (this.unmatched.length === 0) return [];
    const early = this.unmatched.find(({ carrierMessageId, addresses }) => {
      return addresses.includes(recipient) && FORMS.some((form) => receiptRef(carrierMessageId, form) === id);
    });
    if (!early) return [];
    this.unmatched = this.unmatched.filter((one) => one !== early);
    const told = this.match(early);
    const asTold = told.id === receiptRef(early.carrierMessageId, 'as-is');
    return [...(asTold ? [] : [{ ...early, carrierMessageId: told.id }]), ...told.again];
  }

  /**
   * Under which id to report `report`, whose `carrierMessageId` is the receipt's own. `again`: earlier ones to be told a second
   * time, under the id that is now known to be right.
   */
  match(report: CarrierReport): { id: string; again: CarrierReport[] } {
    const id = report.carrierMessageId;
    if (this.fixed) return { id: receiptRef(id, this.form!), again: [] };
    const fitting = FORMS.filter((form) => {
      const recipient = this.recent.get(receiptRef(id, form));
      return recipient !== undefined && report.addresses.includes(recipient);
    });
    const known = this.form !== null && fitting.includes(this.form);
    const form = known ? this.form! : (fitting[0] ?? null);
    if (form !== null && form !== this.form) {
      const votes = this.votes.get(form) ?? new Set();
      votes.add(plainId(id));
      this.votes.set(form, votes);
      if (form === 'as-is' || votes.size >= AGREEING) return this.learn(form, report);
    }
    if (this.form === null && form === null) this.keep(report);
    if (this.form === null && form !== null) {
      // One vote: this report itself is as good as sure, its number and recipient fit.
      return { id: receiptRef(id, form), again: [] };
    }
    return { id: receiptRef(id, this.form ?? 'as-is'), again: [] };
  }

  private learn(form: ReceiptIdForm, report: CarrierReport): { id: string; again: CarrierReport[] } {
    this.form = form;
    this.votes.clear();
    this.learnt(form);
    const again = form === 'as-is' ? [] : this.unmatched;
    this.unmatched = [];
    return {
      id: receiptRef(report.carrierMessageId, form),
      again: again.map((one) => ({ ...one, carrierMessageId: receiptRef(one.carrierMessageId, form) })),
    };
  }

  private keep(report: CarrierReport): void {
    this.unmatched.push(report);
    if (this.unmatched.length > UNMATCHED) this.unmatched.shift();
  }
}
