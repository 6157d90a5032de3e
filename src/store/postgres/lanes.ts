/**
 * Which node serves which lane. Each node beats with the lanes it could serve; nodes whose beat is fresh share each carrier's
 * lanes evenly (not all lanes together: then one node could get a busy carrier, another an idle one); a lease that was not renewed in time is free. A lease is a matter of efficiency (one node feeds a carrier's connections),
 * not of safety: claims of two nodes on one lane pass each other by their row locks.
 */
import { LEASE_LOCK } from './schema.ts';
import { list, sql, type Tx, together } from './tx.ts';

const SQL = {
  alone: sql(`SELECT pg_advisory_xact_lock(${LEASE_LOCK})`),
  beat: sql(`INSERT INTO node (name, until) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET until = excluded.until`),
  leave: sql('DELETE FROM node WHERE name = $1'),
  release: sql('DELETE FROM lane_lease WHERE node = $1'),
  dead: sql('DELETE FROM node WHERE until <= $1'),
  nodes: sql('SELECT name FROM node ORDER BY name'),
  carriers: sql('SELECT no, carrier FROM lane WHERE no = ANY($1::bigint[]) ORDER BY no'),
  leases: sql('SELECT lane, node, until FROM lane_lease WHERE lane = ANY($1::bigint[]) ORDER BY lane'),
  take: sql(`INSERT INTO lane_lease (lane, node, until) SELECT lane, $2, $3::bigint FROM unnest($1::bigint[]) AS x(lane)
    ON CONFLICT (lane) DO UPDATE SET node = excluded.node, until = excluded.until`),
  giveUp: sql('DELETE FROM lane_lease WHERE node = $1 AND NOT (lane = ANY($2::bigint[]))'),
};

/**
 * One beat of `node`: renews what it holds, gives up what is over its share, takes what is free. Returns the lanes held
 * until now + `ttlMs`. No lanes, or a `ttlMs` of 0, = the node leaves.
 */
export async function laneLease(tx: Tx, node: string, lanes: number[], ttlMs: number): Promise<number[]> {
  // Beats are rare and short; one after the other they need no cleverness.
  tx.later(SQL.alone, []);
  if (lanes.length === 0 || ttlMs <= 0) {
    tx.later(SQL.leave, [node]);
    tx.later(SQL.release, [node]);
    return [];
  }
  const until = tx.now + ttlMs;
  tx.later(SQL.dead, [tx.now]);
  tx.later(SQL.beat, [node, until]);
  const [names, leases, rows] = await together([
    tx.query<{ name: string }>(SQL.nodes),
    tx.query<{ lane: number; node: string; until: number }>(SQL.leases, [list(lanes)]),
    tx.query<{ no: number; carrier: string }>(SQL.carriers, [list(lanes)]),
  ]);
  const nodes = names.map((row) => row.name);
  const holder = new Map(leases.filter((lease) => lease.until > tx.now).map((lease) => [lease.lane, lease.node]));
  const carriers = new Map<string, number[]>();
  for (const { no, carrier } of rows) {
    const own = carriers.get(carrier);
    if (own) own.push(no);
    else carriers.set(carrier, [no]);
  }
  // Where a carrier's lanes do not divide evenly, other nodes get one more of each carrier.
  let place = nodes.indexOf(node);
  const mine: number[] = [];
  for (const own of carriers.values()) {
    const more = place++ % nodes.length < own.length % nodes.length ? 1 : 0;
    const share = Math.floor(own.length / nodes.length) + more;
    const held = own.filter((lane) => holder.get(lane) === node).slice(0, share);
    const free = own.filter((lane) => !holder.has(lane)).slice(0, share - held.length);
    mine.push(...held, ...free);
  }
  tx.later(SQL.giveUp, [node, list(mine)]);
  if (mine.length > 0) tx.later(SQL.take, [list(mine), node, until]);
  return mine.sort((a, b) => a - b);
}
