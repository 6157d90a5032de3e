import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { carrierRetryDelay, HOLD_MS, unknownRetryDelay, webhookDelay } from './retry.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

describe('the delay after a failed attempt', () => {
  it('is 2 s, 5 s, 15 s, 30 s, 1, 2, 5, 10, 15 minutes, then 30 minutes for ever', () => {
    const delays = Array.from({ length: 12 }, (_, i) => carrierRetryDelay(i + 1) / 1000);
    expect(delays).toEqual([2, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 1800, 1800]);
    expect(carrierRetryDelay(1_000_000)).toBe(30 * MINUTE);
  });

  it('is the first one where the count is 0 or less (a released claim is no attempt)', () => {
    expect([carrierRetryDelay(0), carrierRetryDelay(-3)]).toEqual([2_000, 2_000]);
  });

  it("is the carrier's wish where it has one, shorter or longer than ours", () => {
    expect(carrierRetryDelay(1, 45_000)).toBe(45_000);
    expect(carrierRetryDelay(10, 3_000)).toBe(3_000);
  });

  it('holds a wish to 1 s..1 h, and ignores nonsense', () => {
    expect(carrierRetryDelay(4, 0)).toBe(1_000);
    expect(carrierRetryDelay(4, HOUR)).toBe(HOUR);
    expect(carrierRetryDelay(4, HOUR + 1)).toBe(HOUR);
    expect(carrierRetryDelay(4, Number.POSITIVE_INFINITY)).toBe(HOUR);
    expect(carrierRetryDelay(4, -1)).toBe(30_000);
    expect(carrierRetryDelay(4, Number.NaN)).toBe(30_000);
  });

  it('is always between 1 s and 1 h', () => {
    fc.assert(
      fc.property(fc.integer(), fc.option(fc.double(), { nil: undefined }), (attempts, wish) => {
        const delay = carrierRetryDelay(attempts, wish);
        return delay >= 1_000 && delay <= HOUR;
      }),
    );
  });
});

describe('after an unknown outcome', () => {
  it('the repetition leaves time to arrive within 10 s, and a hold is 15 minutes', () => {
    expect([unknownRetryDelay, HOLD_MS]).toEqual([2_000, 15 * MINUTE]);
  });
});

describe('the webhook cycle', () => {
  it('is 1 min + 1 min x n x n: 1, 2, 5, 10, 17 ... 362 minutes', () => {
    expect([0, 1, 2, 3, 4, 19].map((n) => webhookDelay(n)! / MINUTE)).toEqual([1, 2, 5, 10, 17, 362]);
  });

  it('makes 20 retries, the last 41 h 30 min after the first try, then gives up', () => {
    let elapsed = 0;
    let retries = 0;
    for (let delay = webhookDelay(0); delay !== null; delay = webhookDelay(retries)) {
      elapsed += delay;
      retries += 1;
    }
    expect([retries, elapsed]).toEqual([20, 41 * HOUR + 30 * MINUTE]);
    expect([webhookDelay(20), webhookDelay(1_000)]).toEqual([null, null]);
  });
});
