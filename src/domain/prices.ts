/**
 * What a message costs by the operator's list: the row with the longest prefix of the destination decides, for each channel. The
 * prices that a request was accepted at are kept with its specs, so that its reports tell them whatever the list says later.
 *
 * Promises: pure; sums are whole millionths, so that no rounding adds up; where the list has no row, the price is 0.
 */
import type { PriceRow } from './accounts.ts';

type Channel = PriceRow['channel'];

/** Prices of the destinations of one spec, by prefix; kept in its body. */
export interface SpecPrices {
  currency: string;
  MMS?: Record<string, number>;
  SMS?: Record<string, number>;
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

/** The rows that decide for these destinations, to be kept with their spec. */
export function specPrices(
  book: PriceBook,
  currency: string,
  destinations: readonly string[],
  sms: boolean,
): SpecPrices {
  const prices: SpecPrices = { currency };
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
