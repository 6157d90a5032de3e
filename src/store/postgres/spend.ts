/**
 * Money of accounts with a spend limit, where the door is not asked: the SMS leg is paid when it begins, and what was taken for
 * a leg that costs nothing after all (rejected, never left, withdrawn) goes back into the counter that it came from.
 *
 * Promises: in the caller's transaction; no more is taken than the limit leaves (what nodes hold of it as their share counts as
 * spent). Against other nodes: who may take holds the account's row, after those of its messages, as `quota` does; counters are
 * written in their order.
 */
import { FAILED_OVER, type Leg } from '../../domain/failover.ts';
import { type Purse, SPEND, spendBucket, spendTake } from '../../domain/limits.ts';
import { legCost, type Paid } from '../../domain/prices.ts';
import { spendOf } from '../accounts.ts';
import { list, sql, type Tx, texts } from './tx.ts';

const SQL = {
  accounts: sql('SELECT no, body FROM account WHERE no = ANY($1::bigint[]) ORDER BY no FOR NO KEY UPDATE'),
  // OFFSET 0: see settle.ts, refs.
  used: sql(`SELECT q.account, q.used FROM unnest($1::bigint[], $2::bigint[]) AS x(account, bucket)
    CROSS JOIN LATERAL (SELECT account, used FROM quota r
      WHERE r.account = x.account AND r.scope = '${SPEND}' AND r.bucket = x.bucket OFFSET 0) q`),
  take: sql(`INSERT INTO quota (account, scope, bucket, used, until)
    SELECT account, scope, bucket, given, until
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS x(account, scope, bucket, given, until)
    ORDER BY account, bucket
    ON CONFLICT (account, scope, bucket) DO UPDATE SET used = quota.used + excluded.used, until = excluded.until`),
  // When the SMS legs of messages began.
  began: sql(
    `SELECT message, max(at) AS at FROM event WHERE message = ANY($1::bigint[]) AND leg = ${FAILED_OVER} GROUP BY message`,
  ),
  back: sql(`WITH held AS (SELECT q.account, q.bucket, x.given
      FROM (SELECT account, bucket, given FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS y(account, bucket, given)
        ORDER BY account, bucket OFFSET 0) x
      CROSS JOIN LATERAL (SELECT r.account, r.bucket FROM quota r
        WHERE r.account = x.account AND r.scope = '${SPEND}' AND r.bucket = x.bucket OFFSET 0 FOR UPDATE) q)
    UPDATE quota q SET used = greatest(0, q.used - h.given) FROM held h
    WHERE q.account = h.account AND q.bucket = h.bucket AND q.scope = '${SPEND}' AND q.account = ANY($1::bigint[])`),
};

/** The message whose leg is meant. */
interface Payer {
  no: number;
  account: number;
  to: string;
}

/** What is taken and given back in one transaction, until `flush`. */
export class Spend {
  private readonly tx: Tx;
  private readonly limits = new Map<number, { limit: Purse; bucket: number; most: number; left: number } | null>();
  private readonly taken = new Map<number, number>();
  /** By account and bucket. */
  private readonly given = new Map<string, { account: number; bucket: number; given: number }>();
  /** Of SMS legs: when each began is asked at the end. */
  private readonly givenSms: { no: number; account: number; cost: number }[] = [];

  constructor(tx: Tx) {
    this.tx = tx;
  }

  /** Of accounts whose messages may begin an SMS leg that costs something: their rows are held from here on. */
  async load(accounts: Iterable<number>): Promise<void> {
    const wanted = [...new Set(accounts)].filter((account) => !this.limits.has(account)).sort((a, b) => a - b);
    if (wanted.length === 0) return;
    const rows = await this.tx.query<{ no: number; body: string | null }>(SQL.accounts, [list(wanted)]);
    const limited: { account: number; limit: Purse; bucket: number; most: number }[] = [];
    for (const account of wanted) this.limits.set(account, null);
    for (const { no: account, body } of rows) {
      const limit = spendOf(body);
      if (limit !== null) {
        const { bucket, most } = spendTake(account, limit, this.tx.now, 0);
        limited.push({ account, limit, bucket, most });
      }
    }
    if (limited.length === 0) return;
    const used = await this.tx.query<{ account: number; used: number }>(SQL.used, [
      list(limited.map(({ account }) => account)),
      list(limited.map(({ bucket }) => bucket)),
    ]);
    const usedOf = new Map(used.map((row) => [row.account, row.used]));
    for (const { account, limit, bucket, most } of limited) {
      this.limits.set(account, { limit, bucket, most, left: most - (usedOf.get(account) ?? 0) });
    }
  }

  /** For the SMS of a message whose MMS was counted; false = the credit does not reach. */
  take(paid: Paid, { account, to }: Payer): boolean {
    const cost = legCost(paid, 1, to);
    const purse = this.limits.get(account);
    if (cost === 0 || !purse) return true;
    if (cost > purse.left) return false;
    purse.left -= cost;
    this.taken.set(account, (this.taken.get(account) ?? 0) + cost);
    return true;
  }

  /** Of the leg of a message that costs nothing after all. */
  back(paid: Paid, leg: Leg, { no, account, to }: Payer): void {
    const cost = legCost(paid, leg, to);
    if (cost === 0) return;
    if (leg === 1) {
      this.givenSms.push({ no, account, cost });
      return;
    }
    // Its own SMS may be paid with it.
    const purse = this.limits.get(account);
    if (purse?.bucket === paid.bucket) purse.left = Math.min(purse.most, purse.left + cost);
    this.give(account, paid.bucket, cost);
  }

  private give(account: number, bucket: number, cost: number): void {
    const name = `${account} ${bucket}`;
    this.given.set(name, { account, bucket, given: (this.given.get(name)?.given ?? 0) + cost });
  }

  /** Into the counters that were current when the SMS legs began. */
  private async giveSms(): Promise<void> {
    await this.load(this.givenSms.map(({ account }) => account));
    const nos = list(this.givenSms.map(({ no }) => no));
    const rows = await this.tx.query<{ message: number; at: number }>(SQL.began, [nos]);
    const began = new Map(rows.map(({ message, at }) => [message, at]));
    for (const { no, account, cost } of this.givenSms) {
      const limit = this.limits.get(account)?.limit;
      const at = began.get(no) ?? this.tx.now;
      // One that began before paid out of a total that has ended since.
      if (limit && at >= limit.since) this.give(account, spendBucket(limit, at).bucket, cost);
    }
  }

  async flush(): Promise<void> {
    const { tx } = this;
    if (this.taken.size > 0) {
      const takes = [...this.taken].map(([account, cost]) => {
        const { limit } = this.limits.get(account) as { limit: Purse };
        return spendTake(account, limit, tx.now, cost);
      });
      tx.later(SQL.take, [
        list(takes.map(({ account }) => account)),
        texts(takes.map(({ scope }) => scope)),
        list(takes.map(({ bucket }) => bucket)),
        list(takes.map(({ want }) => want)),
        list(takes.map(({ keepMs }) => tx.now + keepMs)),
      ]);
    }
    if (this.givenSms.length > 0) await this.giveSms();
    if (this.given.size === 0) return;
    const backs = [...this.given.values()];
    tx.later(SQL.back, [
      list(backs.map(({ account }) => account)),
      list(backs.map(({ bucket }) => bucket)),
      list(backs.map(({ given }) => given)),
    ]);
  }
}
