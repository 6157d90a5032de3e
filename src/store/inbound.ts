/**
 * What both engines make of a message from a handset, pure: the row that its account sees.
 */
import type { Spec } from '../domain/message.ts';
import type { InboundIn, InboundRow, OwnNumber, Story } from './contract.ts';

/** In the story of a message that its recipient does not want. */
export const OPT_OUT_WORDS = 'the recipient wants nothing from this sender';

/** A row of own_number. */
export interface NumberRow {
  number: string;
  account: number;
  url: string | null;
  entity: string | null;
  application: string | null;
  callback: string | null;
}

/** A message that was answered, with what its request said. */
export interface PairedRow {
  no: number;
  key: string | null;
  body: string;
  entity: string | null;
  application: string | null;
}

/** Characters of an answer that the story shows. */
const SHOWN = 200;

/** A message from a handset, of its kept body, as the story of the one that it answers shows it. */
export function answerOf(body: string): Story['answers'][number] {
  const { no, receivedAt, channel, from, subject, parts } = JSON.parse(body) as InboundRow;
  const words = parts.find(({ text }) => text !== null)?.text ?? subject ?? '';
  return { no, at: receivedAt, channel, from, text: words.slice(0, SHOWN) };
}

/** A number in the contract's words. */
export function toOwnNumber({ callback, ...row }: NumberRow): OwnNumber {
  return { ...row, callbackData: callback };
}

/** What the account sees of a message, fixed when it comes. */
export function inboundRow(
  message: InboundIn,
  context: {
    account: number;
    to: string;
    number: NumberRow | null;
    paired: PairedRow | null;
    receivedAt: number;
  },
): InboundRow {
  const { account, to, number, paired, receivedAt } = context;
  const spec = paired === null ? null : (JSON.parse(paired.body) as Partial<Spec>);
  const several = message.to.length + message.cc.length > 1;
  return {
    no: message.no,
    account,
    carrier: message.carrier,
    channel: message.channel,
    from: message.from,
    to,
    group: several ? [...message.to.map((one) => ({ to: one })), ...message.cc.map((one) => ({ cc: one }))] : [],
    subject: message.subject,
    ...(message.priority === undefined ? {} : { priority: message.priority }),
    ...(message.userAgent === undefined ? {} : { userAgent: message.userAgent }),
    parts: message.parts,
    receivedAt,
    paired: paired === null ? null : { no: paired.no, key: paired.key },
    callbackData: spec?.webhooks?.callbackData ?? number?.callback ?? null,
    entity: number?.entity ?? paired?.entity ?? null,
    application: number?.application ?? paired?.application ?? null,
  };
}
