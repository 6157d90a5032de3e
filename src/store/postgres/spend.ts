/**
 * Money of accounts with a spend limit, where the door is not asked: the SMS leg is paid when it begins, and what was taken for
 * a leg that costs nothing after all (rejected, never left, withdrawn) goes back into the counter that it came from.
 *
 * Promises: in the caller's transaction; no more is taken than the limit leaves (what nodes hold of it as their share counts as
 * spent). Against other nodes: who may take holds the account's row, after those of its messages, as `quota` does; counters are
 * written in their order.
 */
import type { SpendLimit } from '../../domain/accounts.ts';
import type { Leg } from '../../domain/failover.ts';
import { SPEND, spendBucket, spendTake } from '../../domain/limits.ts';
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
  account: number;
  to: string;
}

/** What is taken and given back in one transaction, until `flush`. */
export class Spend {
  private readonly tx: Tx;
  private readonly limits = new Map<number, { limit: SpendLimit; left: number } | null>();
  private readonly taken = new Map<number, number>();
  /** By account and bucket; null = the one that counts now. */
  private readonly given = new Map<string, { account: number; bucket: number | null; given: number }>();

  constructor(tx: Tx) {
    this.tx = tx;
  }

  /** Of accounts whose messages may begin an SMS leg that costs something: their rows are held from here on. */
  async load(accounts: Iterable<number>): Promise<void> {
    const wanted = [...new Set(accounts)].filter((account) => !this.limits.has(account)).sort((a, b) => a - b);
    if (wanted.length === 0) return;
    const rows = await this.tx.query<{ no: number; body: string | null }>(SQL.accounts, [list(wanted)]);
    const limited: { account: number; limit: SpendLimit; bucket: number; most: number }[] = [];
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
    for (const { account, limit, most } of limited) {
      this.limits.set(account, { limit, left: most - (usedOf.get(account) ?? 0) });
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
  back(paid: Paid, leg: Leg, { account, to }: Payer): void {
    const cost = legCost(paid, leg, to);
    if (cost === 0) return;
    const bucket = leg === 0 ? paid.bucket : null;
    const name = `${account} ${bucket}`;
    this.given.set(name, { account, bucket, given: (this.given.get(name)?.given ?? 0) + cost });
  }

  async flush(): Promise<void> {
    const { tx } = this;
    if (this.taken.size > 0) {
      const takes = [...this.taken].map(([account, cost]) => {
        const { limit } = this.limits.get(account) as { limit: SpendLimit };
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
    if (this.given.size === 0) return;
    await this.load([...this.given.values()].flatMap(({ account, bucket }) => (bucket === null ? [account] : [])));
    const backs = [...this.given.values()].flatMap(({ account, bucket, given }) => {
      const limit = this.limits.get(account)?.limit;
      const at = bucket ?? (limit && spendBucket(limit, tx.now).bucket);
      return at === undefined ? [] : [{ account, bucket: at, given }];
    });
    if (backs.length === 0) return;
    tx.later(SQL.back, [
      list(backs.map(({ account }) => account)),
      list(backs.map(({ bucket }) => bucket)),
      list(backs.map(({ given }) => given)),
    ]);
  }
}
