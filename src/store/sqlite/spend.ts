/**
 * Money of accounts with a spend limit, where the door is not asked: the SMS leg is paid when it begins, and what was taken for
 * a leg that costs nothing after all (rejected, never left, withdrawn) goes back into the counter that it came from.
 *
 * Promises: in the caller's transaction; no more is taken than the limit leaves (what nodes hold of it as their share counts as
 * spent).
 */

import { FAILED_OVER, type Leg } from '../../domain/failover.ts';
import { SPEND, spendBucket, spendTake } from '../../domain/limits.ts';
import { legCost, type Paid } from '../../domain/prices.ts';
import { spendOf } from '../accounts.ts';
import { prepare, type Tx } from './tx.ts';

/** The message whose leg is meant. */
interface Payer {
  no: number;
  account: number;
  to: string;
}

/** On the transaction that it is given. */
export function createSpend(tx: Tx) {
  const db = tx.db;
  const q = {
    account: prepare<{ body: string | null }>(db, 'SELECT body FROM account WHERE no = ?'),
    used: prepare<{ used: number }>(db, 'SELECT used FROM quota WHERE account = ? AND scope = ? AND bucket = ?'),
    take: prepare(
      db,
      `INSERT INTO quota (account, scope, bucket, used, until) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (account, scope, bucket) DO UPDATE SET used = used + excluded.used, until = excluded.until`,
    ),
    back: prepare(db, 'UPDATE quota SET used = max(0, used - ?) WHERE account = ? AND scope = ? AND bucket = ?'),
    began: prepare<{ at: number | null }>(
      db,
      `SELECT max(at) AS at FROM event WHERE message = ? AND leg = ${FAILED_OVER}`,
    ),
  };
  const limitOf = (account: number) => spendOf(q.account.get(account)?.body ?? null);
  return {
    /** For the SMS of a message whose MMS was counted; false = the credit does not reach. */
    take(paid: Paid, { account, to }: Payer): boolean {
      const cost = legCost(paid, 1, to);
      const limit = cost === 0 ? null : limitOf(account);
      if (limit === null) return true;
      const { scope, bucket, most, keepMs } = spendTake(account, limit, tx.now, cost);
      if ((q.used.get(account, scope, bucket)?.used ?? 0) + cost > most) return false;
      q.take.run(account, scope, bucket, cost, tx.now + keepMs);
      return true;
    },
    back(paid: Paid, leg: Leg, { no, account, to }: Payer): void {
      const cost = legCost(paid, leg, to);
      if (cost === 0) return;
      if (leg === 0) {
        q.back.run(cost, account, SPEND, paid.bucket);
        return;
      }
      const limit = limitOf(account);
      if (limit === null) return;
      const at = q.began.get(no)?.at ?? tx.now;
      // Paid out of a total that has ended since.
      if (at < limit.since) return;
      q.back.run(cost, account, SPEND, spendBucket(limit, at).bucket);
    },
  };
}
