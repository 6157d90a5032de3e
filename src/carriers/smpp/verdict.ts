/**
 * What an SMSC's answer to submit_sm means, as an Outcome. Pure; `VERDICTS` is the table.
 *
 * The rule behind it: refused, deferred and throttled claim that the SMSC did not take the message, so they need a status that
 * says so. What says something of the link (bind state, password) and not of the message defers it until somebody mends that.
 *
 * Promises: any status gets an outcome; words are its code and name, at most 200 characters.
 *
 * Source: SMPP 3.4, 5.1.3, and what carriers answer in the field (0x45 and 0xff stand for "no" more often than for "later").
 */
import type { Failure, Outcome } from '../../domain/submission.ts';

/** What an operator may say of a status, over the table. */
export type Verdict = 'refuse' | 'retry' | 'throttle';

/** Status, name, verdict, id of the error table. */
const ROWS: readonly [number, string, Verdict, number][] = [
  // 355 text too long
  [0x01, 'RINVMSGLEN', 'refuse', 355],
  // 500 protocol error: the link is set up wrongly
  [0x02, 'RINVCMDLEN', 'retry', 500],
  [0x03, 'RINVCMDID', 'retry', 500],
  // 4102 not submitted: the session, not the message
  [0x04, 'RINVBNDSTS', 'retry', 4102],
  [0x05, 'RALYBND', 'retry', 4102],
  // 4096 a field that they cannot take
  [0x06, 'RINVPRTFLG', 'refuse', 4096],
  [0x07, 'RINVREGDLVFLG', 'refuse', 4096],
  // 34 system failure
  [0x08, 'RSYSERR', 'retry', 34],
  // 368 source, 351 destination
  [0x0a, 'RINVSRCADR', 'refuse', 368],
  [0x0b, 'RINVDSTADR', 'refuse', 351],
  [0x0c, 'RINVMSGID', 'refuse', 4096],
  [0x0d, 'RBINDFAIL', 'retry', 4102],
  [0x0e, 'RINVPASWD', 'retry', 4102],
  [0x0f, 'RINVSYSID', 'retry', 4102],
  // 33 waiting list full
  [0x14, 'RMSGQFUL', 'throttle', 33],
  // 508 service not supported
  [0x15, 'RINVSERTYP', 'refuse', 508],
  [0x33, 'RINVNUMDESTS', 'refuse', 4096],
  [0x34, 'RINVDLNAME', 'refuse', 4096],
  [0x40, 'RINVDESTFLAG', 'refuse', 4096],
  [0x42, 'RINVSUBREP', 'refuse', 4096],
  [0x43, 'RINVESMCLASS', 'refuse', 4096],
  // 632 rejected by the operator
  [0x45, 'RSUBMITFAIL', 'refuse', 632],
  [0x48, 'RINVSRCTON', 'refuse', 368],
  [0x49, 'RINVSRCNPI', 'refuse', 368],
  [0x50, 'RINVDSTTON', 'refuse', 351],
  [0x51, 'RINVDSTNPI', 'refuse', 351],
  [0x53, 'RINVSYSTYP', 'retry', 4102],
  [0x54, 'RINVREPFLAG', 'refuse', 4096],
  [0x55, 'RINVNUMMSGS', 'refuse', 4096],
  // 541 sending limit reached
  [0x58, 'RTHROTTLED', 'throttle', 541],
  // 36 unexpected value
  [0x61, 'RINVSCHED', 'refuse', 36],
  [0x62, 'RINVEXPIRY', 'refuse', 36],
  [0x63, 'RINVDFTMSGID', 'refuse', 4096],
  [0x64, 'RX_T_APPN', 'retry', 34],
  [0x65, 'RX_P_APPN', 'refuse', 632],
  [0x66, 'RX_R_APPN', 'refuse', 632],
  [0xc0, 'RINVOPTPARSTREAM', 'refuse', 4096],
  [0xc1, 'ROPTPARNOTALLWD', 'refuse', 4096],
  [0xc2, 'RINVPARLEN', 'refuse', 4096],
  [0xc3, 'RMISSINGOPTPARAM', 'refuse', 4096],
  [0xc4, 'RINVOPTPARAMVAL', 'refuse', 4096],
  // 32 delivery failed
  [0xfe, 'RDELIVERYFAILURE', 'retry', 32],
  // 633 unknown operator error
  [0xff, 'RUNKNOWNERR', 'refuse', 633],
];
const VERDICTS: ReadonlyMap<number, (typeof ROWS)[number]> = new Map(ROWS.map((row) => [row[0], row]));
/** A status outside the table (vendors' own begin at 0x400): a closer meaning needs the operator's list. */
const VENDOR = 500;

/** Verdicts over the table, by status. Keys may be decimal or `0x` hexadecimal. */
export function readStatusTable(table: Readonly<Record<string, Verdict>> = {}): ReadonlyMap<number, Verdict> {
  return new Map(Object.entries(table).map(([status, verdict]) => [Number(status), verdict]));
}

/** `0x0b ESME_RINVDSTADR` */
export function statusWords(status: number): string {
  const name = VERDICTS.get(status)?.[1];
  return `0x${status.toString(16).padStart(2, '0')}${name === undefined ? '' : ` ESME_${name}`}`;
}

/** Whether a status asks to slow down. */
export function verdictOf(status: number, own: ReadonlyMap<number, Verdict>): Verdict {
  return own.get(status) ?? VERDICTS.get(status)?.[2] ?? 'retry';
}

/** The outcome of a status that is not 0. `pauseMs`: how long the link waits where it is asked to. */
export function outcomeOf(
  status: number,
  own: ReadonlyMap<number, Verdict>,
  pauseMs: number,
  words?: string,
): Exclude<Outcome, { kind: 'accepted' | 'unknown' | 'contentFailed' }> {
  const error: Failure = {
    id: VERDICTS.get(status)?.[3] ?? VENDOR,
    words: `${statusWords(status)}${words ? `: ${words}` : ''}`.slice(0, 200),
  };
  switch (verdictOf(status, own)) {
    case 'refuse':
      return { kind: 'refused', error };
    case 'retry':
      return { kind: 'deferred', error };
    case 'throttle':
      return { kind: 'throttled', retryAfterMs: pauseMs, error };
  }
}
