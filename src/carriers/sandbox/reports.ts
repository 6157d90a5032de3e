/**
 * What happens after a submission was taken: each recipient's steps at their time, and the DeliveryReportReq that tells of
 * them. The message lies on the handset before its report goes out.
 *
 * Promises: a recipient's reports go out in order, one at a time (a doubled one: both at once), each until it is answered with
 * 1000 or 48 h have passed; what is pending is in the ledger only, so a restart goes on where the last run was. At most
 * `IN_FLIGHT` recipients are being reported.
 *
 * Fails: nobody answers, or not with 1000: again after `BACKOFF`. The disk refuses: again a second later.
 */
import type { Env, Timer } from '../../env.ts';
import { BACKOFF, BACKOFF_LAST, GIVE_UP_MS, STOP_MS } from './backoff.ts';
import { behaviourOf, type ReportStatus } from './behaviours.ts';
import type { Callback } from './callback.ts';
import type { Ledger, Pending } from './ledger.ts';
import { printReport } from './peer.ts';

const SECOND = 1_000;
/** Recipients being reported at a time, and so connections that reports take. */
export const IN_FLIGHT = 32;
/** Due recipients read at once. */
const READ_AHEAD = 256;
/** Due times this close share a wake-up, and so a commit. */
const TICK_MS = 10;
export interface Reports {
  start(): void;
  /** Something is due at `at` (epoch ms). */
  wake(at: number): void;
  /** No new reports; those in flight are answered, or told again after the next start. */
  stop(): Promise<void>;
}

/** `callback`: where DeliveryReportReq are posted. Nothing is sent before `start`. */
export function createReports({ ledger, callback, env }: { ledger: Ledger; callback: Callback; env: Env }): Reports {
  const abort = new AbortController();
  /** Read from the ledger, not begun. */
  let ready: Pending[] = [];
  /** In `ready`, or begun. */
  const known = new Set<number>();
  let inFlight = 0;
  let timer: Timer | null = null;
  let armedFor = Number.POSITIVE_INFINITY;
  let stopping = false;
  let idle: (() => void) | null = null;
  let answered = true;

  function pump(): void {
    if (stopping) return;
    while (inFlight < IN_FLIGHT) {
      const next = ready.shift() ?? read();
      if (!next) break;
      inFlight++;
      void carry(next);
    }
    if (inFlight < IN_FLIGHT) arm(ledger.nextDue(env.clock.now()));
  }

  function read(): Pending | undefined {
    ready = ledger.due(env.clock.now(), READ_AHEAD + known.size).filter((one) => !known.has(one.no));
    for (const one of ready) known.add(one.no);
    return ready.shift();
  }

  function arm(at: number | null): void {
    if (at === null || at >= armedFor || stopping) return;
    timer?.cancel();
    armedFor = at;
    timer = env.clock.setTimeout(
      () => {
        armedFor = Number.POSITIVE_INFINITY;
        timer = null;
        pump();
      },
      Math.max(TICK_MS, at - env.clock.now()),
    );
  }

  async function carry(pending: Pending): Promise<void> {
    try {
      await step(pending);
    } catch (error) {
      // The row stays due; not at once again, or a full disk would keep this loop busy.
      env.log.error({ err: error }, 'sandbox: a report could not be noted');
      await env.clock.sleep(SECOND, abort.signal);
    }
    known.delete(pending.no);
    inFlight--;
    if (stopping && inFlight === 0) idle?.();
    pump();
  }

  /** One step of one recipient, or one more try to tell of it. */
  async function step(pending: Pending): Promise<void> {
    const now = env.clock.now();
    // Called back, or moved, since it was read.
    if (!ledger.isDue(pending, now)) return;
    const steps = behaviourOf(pending.recipient.msisdn).steps;
    const planned = steps[pending.step];
    if (!planned) return ledger.advance(pending, null);
    let { status } = planned;
    let following = steps[pending.step + 1];
    if (status === 'Retrieved' && !pending.delivered) {
      if (pending.expiresAt !== null && now > pending.expiresAt) {
        // ExpiryDate came first: the handset never sees it.
        status = 'Expired';
        following = undefined;
      } else {
        // Called back meanwhile: nothing is left to tell.
        if (!(await ledger.deliver(pending))) return;
        pending.delivered = true;
        pending.since = now;
      }
    }
    const next = (): number | null => (following ? env.clock.now() + following.afterMs : null);
    if (!pending.reports) return ledger.advance(pending, next());
    if (await tell(pending, status, planned.copies ?? 1)) return ledger.advance(pending, next(), 'reported');
    if (abort.signal.aborted) return;
    const { log } = env;
    if (now - (pending.since ?? now) >= GIVE_UP_MS) {
      log.warn({ carrierMessageId: pending.messageId, status }, 'sandbox: nobody took a report for 48 h, given up');
      return ledger.advance(pending, next(), 'reportsGivenUp');
    }
    return ledger.postpone(pending, env.clock.now() + (BACKOFF[pending.tries] ?? BACKOFF_LAST));
  }

  /** True = every copy was answered with 1000. Never rejects. */
  async function tell(pending: Pending, status: ReportStatus, copies: number): Promise<boolean> {
    const { messageId, recipient, sender, namespace, version } = pending;
    const at = pending.since ?? env.clock.now();
    const posts = Array.from({ length: copies }, (_, copy) => {
      // The same id for each try of a report; the copy of a doubled one has its own.
      const transactionId = `${messageId}-${pending.member}-${pending.step}${copy > 0 ? `-${copy}` : ''}`;
      const xml = printReport({ transactionId, namespace, version, messageId, recipient, sender, at, status });
      return callback.post('text/xml; charset=utf-8', xml, 'DeliveryReportRsp', abort.signal);
    });
    const taken = (await Promise.all(posts)).every(Boolean);
    if (taken !== answered && !abort.signal.aborted) {
      if (taken) env.log.info({}, 'sandbox: reports are taken again');
      else env.log.warn({ url: callback.origin }, 'sandbox: a report was not taken, will be told again');
      answered = taken;
    }
    return taken;
  }

  return {
    start: pump,
    wake: arm,
    async stop() {
      stopping = true;
      timer?.cancel();
      if (inFlight > 0) {
        const limit = env.clock.setTimeout(() => abort.abort(), STOP_MS);
        await new Promise<void>((resolve) => {
          idle = resolve;
        });
        limit.cancel();
      }
    },
  };
}
