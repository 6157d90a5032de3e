/**
 * What a message costs by the operator's list: the row with the longest prefix of the destination decides, for each channel. The
 * prices that a request was accepted at are kept with its specs, so that its reports tell them whatever the list says later. What
 * is REJECTED or never left costs nothing (published: a status of the group REJECTED is not charged).
 *
 * Promises: pure; sums are whole millionths, so that no rounding adds up; where the list has no row, the price is 0.
 */
import type { PriceRow } from './accounts.ts';
import { statusView } from './codes.ts';
import { type Leg, smsSegmentsOf } from './failover.ts';
import type { Spec } from './message.ts';
import { NOT_SENT } from './status.ts';

type Channel = PriceRow['channel'];

/** Prices of the destinations of one spec, by prefix; kept in its body. */
export interface SpecPrices {
  currency: string;
  MMS?: Record<string, number>;
  SMS?: Record<string, number>;
  /** The bucket of the spend limit that the MMS were counted in; absent = the account had none. */
  spend?: number;
}

/** A price list, ready to be asked. */
export interface PriceBook {
  readonly empty: boolean;
  /** The row that decides for a number; null = none. */
  row(channel: Channel, number: string): PriceRow | null;
}

/** Units of money in sums: a millionth of the currency's. */
export const MICROS = 1_000_000;

/** A price in millionths. */
export function micros(price: number): number {
  return Math.round(price * MICROS);
}

/** A list of at most PRICES_MAX rows; of two for the same prefix the later holds. */
export function priceBook(rows: readonly PriceRow[]): PriceBook {
  const of = { MMS: new Map<string, PriceRow>(), SMS: new Map<string, PriceRow>() };
  let longest = 0;
  for (const row of rows) {
    of[row.channel].set(row.prefix, row);
    longest = Math.max(longest, row.prefix.length);
  }
  return {
    empty: rows.length === 0,
    row(channel, number) {
      for (let length = Math.min(longest, number.length); length >= 0; length--) {
        const row = of[channel].get(number.slice(0, length));
        if (row) return row;
      }
      return null;
    },
  };
}

/** The rows that decide for these destinations, to be kept with their spec. `spend` as in SpecPrices. */
export function specPrices(
  book: PriceBook,
  currency: string,
  destinations: readonly string[],
  sms: boolean,
  spend?: number,
): SpecPrices {
  const prices: SpecPrices = { currency, ...(spend === undefined ? {} : { spend }) };
  for (const channel of sms ? (['MMS', 'SMS'] as const) : (['MMS'] as const)) {
    const found: Record<string, number> = {};
    for (const number of destinations) {
      const row = book.row(channel, number);
      if (row) found[row.prefix] = row.price;
    }
    prices[channel] = found;
  }
  return prices;
}

/** The price of one message by what was kept with its spec. */
export function priceOf(prices: SpecPrices | undefined, channel: Channel, number: string): number {
  const rows = prices?.[channel];
  if (rows === undefined) return 0;
  for (let length = number.length; length >= 0; length--) {
    const prefix = number.slice(0, length);
    if (Object.hasOwn(rows, prefix)) return rows[prefix] as number;
  }
  return 0;
}

/** How a leg of a message ended, or stands. */
interface LegEnd {
  leg: number;
  status: number;
  error: number;
  /** The message's first submission, of whichever leg. */
  sentAt: number | null;
}

/** Whether it costs nothing. */
export function isFree({ leg, status, error, sentAt }: LegEnd): boolean {
  const { groupName } = statusView(status);
  if (groupName === 'REJECTED') return true;
  if (groupName !== 'UNDELIVERABLE' && groupName !== 'EXPIRED') return false;
  // Where one leg was submitted, the error tells whether the other was.
  return sentAt === null || (error === NOT_SENT && (leg === 1 || groupName === 'EXPIRED'));
}

/** What engines must know of a spec whose messages are held against a spend limit. */
export interface Paid {
  /** Where its MMS were counted when they were accepted. */
  bucket: number;
  prices: SpecPrices;
  /** Of the failover's text. */
  segments: number;
}

/** By a spec's body (as kept); null = nothing of it is held against a limit. */
export function paidOf(body: string | null): Paid | null {
  if (body === null) return null;
  const spec = JSON.parse(body) as Spec;
  const { prices } = spec;
  return prices?.spend === undefined ? null : { bucket: prices.spend, prices, segments: smsSegmentsOf(spec) };
}

/** Stands in the body of every spec that `paidOf` knows something of, so that the others need not be read. */
export const PAID_MARK = '"spend":';

/** What one leg of a message to a number costs, in millionths. */
export function legCost({ prices, segments }: Paid, leg: Leg, to: string): number {
  return leg === 1 ? micros(priceOf(prices, 'SMS', to)) * segments : micros(priceOf(prices, 'MMS', to));
}

/** For the story, where the account's credit does not reach for the SMS. */
export const NO_CREDIT_WORDS = 'no credit for the SMS failover';
