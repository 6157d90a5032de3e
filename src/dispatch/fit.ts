/**
 * Between a claim and its submission: the content is made to fit what the carrier takes, as long as the claim is young. Fitting
 * a film takes longer than a claim may live: then the claim is put back, and a later one finds what was made.
 *
 * Fails: as what it is given does.
 */
import type { Clock } from '../env.ts';
import type { Prepared, PrepareResult } from './prepare.ts';

/** A lane's way to make content fit: a failure is final, a rejection means that it cannot be tried now. */
export type Fit = (prepared: Prepared) => PrepareResult | Promise<PrepareResult>;

/** How long a claim waits whose content was not ready in time. */
export const FIT_AGAIN_MS = 1_000;

/** What was prepared, fitted; null = not ready within `ms`, or `halt` came. */
export async function fitInTime(
  result: PrepareResult,
  how: Fit | undefined,
  ms: number,
  clock: Clock,
  halt: AbortSignal,
): Promise<PrepareResult | null> {
  if (!result.ok || how === undefined) return result;
  const fitting = how(result.prepared);
  if (!(fitting instanceof Promise)) return fitting;
  const over = new AbortController();
  const late = clock.sleep(ms, AbortSignal.any([halt, over.signal])).then(() => null);
  return Promise.race([fitting, late]).finally(() => over.abort());
}
