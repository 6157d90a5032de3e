/**
 * The second wall between accounts (G18): row-level security. What the store does in the name of an account runs under a role that
 * owns nothing, with that account set for the transaction, and sees and changes that account's rows only, also where a statement
 * forgot to say so. What the system does for all of them (claims, reports, webhooks, the sweep, the operator) runs as the owner of
 * the tables, whom policies do not touch: same plans, no cost.
 *
 * `RULES` says for each table what the role may do and which rows are an account's; a table that is not named there, or may
 * nothing, is out of its reach. Policies name no role, so a dump can be restored anywhere.
 *
 * Promises: raised at each open where something of it is missing, table by table, so that nodes at work are not in its way and no
 * two nodes raise it at once. Versions before it, which know nothing of it, log in as the owner and see all as before. A change of RULES
 * goes with a step of the schema, so that no older node is started that would put its own back; a right is taken away one version after
 * its last use.
 *
 * Fails: where the role cannot be made the store works without the wall, and says why (`Wall.why`); a login that is itself
 * shut out by the policies is refused at open (HiddenRows), since it would take what it does not see for what is not there.
 */
import { createHash } from 'node:crypto';
import { quoted, sqlState } from './answers.ts';
import { ACCOUNTS } from './link.ts';
import type { Ask } from './tx.ts';

/** Empty, or never set = no account. One look a statement, not one a row. */
const SET = `(SELECT nullif(current_setting('${ACCOUNTS}', true), '')::bigint[])::bigint[]`;
/** + 0: a filter and never the condition of an index, so that no plan turns on it. */
const own = (column: string): string => `${column} + 0 = ANY (${SET})`;
const ACCOUNT = own('account');
/**
 * Rows that hang on another row are an account's if that one is; its own policy decides. OFFSET 0: looked up for the row at hand,
 * never made into a list of all.
 */
const under = (table: string, column: string, parent: string, key = 'no'): string =>
  `EXISTS (SELECT FROM ${parent} p WHERE p.${key} = ${table}.${column} OFFSET 0)`;

type Right = 'SELECT' | 'INSERT' | 'UPDATE' | 'DELETE';

interface Rule {
  /** Which rows are an account's; null = all of them may be seen, they say nothing of any account. */
  rows: string | null;
  may: Right[];
}

const READ: Right[] = ['SELECT'];
const ADD: Right[] = ['SELECT', 'INSERT'];
const CHANGE: Right[] = ['SELECT', 'INSERT', 'UPDATE'];
const ALL: Right[] = ['SELECT', 'INSERT', 'UPDATE', 'DELETE'];

/** Rows of a message, or of what clicks still know of it. */
const ofMessage = (table: string): string =>
  `${under(table, 'message', 'message')} OR ${under(table, 'message', 'link_message')}`;

/**
 * What stands here with no rights is not for an account's transactions at all; its policy is for the day when somebody gives
 * one. Tables that are not here get row-level security without a policy: nobody but the owner sees a row.
 */
export const RULES: Record<string, Rule> = {
  bulk: { rows: ACCOUNT, may: CHANGE },
  spec: { rows: ACCOUNT, may: ADD },
  unsought: { rows: ACCOUNT, may: READ },
  // Hashes and numbers, which tell nobody whose they are.
  sought: { rows: null, may: READ },
  message: { rows: ACCOUNT, may: ADD },
  message_key: { rows: ACCOUNT, may: ADD },
  idem: { rows: ACCOUNT, may: CHANGE },
  turn: { rows: ACCOUNT, may: CHANGE },
  line: { rows: ACCOUNT, may: CHANGE },
  wake: { rows: under('wake', 'line', 'line'), may: ['SELECT', 'INSERT', 'DELETE'] },
  run: { rows: under('run', 'line', 'line'), may: CHANGE },
  retry: { rows: under('retry', 'line', 'line'), may: ['SELECT', 'UPDATE'] },
  flight: { rows: under('flight', 'run', 'run'), may: ['SELECT', 'UPDATE'] },
  deadline: { rows: under('deadline', 'run', 'run'), may: CHANGE },
  // A group's first number may have no message (its id was used before); its run has that number.
  attempt: {
    rows: `EXISTS (SELECT FROM message p WHERE p.no = abs(attempt.leader) OFFSET 0) OR
      EXISTS (SELECT FROM run p WHERE p.no = attempt.leader AND p.members > 0 OFFSET 0)`,
    may: READ,
  },
  event: { rows: ACCOUNT, may: ADD },
  endpoint: { rows: ACCOUNT, may: CHANGE },
  endpoint_wake: { rows: under('endpoint_wake', 'endpoint', 'endpoint'), may: ['INSERT'] },
  outbox: { rows: under('outbox', 'endpoint', 'endpoint'), may: ADD },
  open_event: { rows: under('open_event', 'message', 'message'), may: ADD },
  hook: { rows: ACCOUNT, may: ['SELECT', 'UPDATE'] },
  hook_try: { rows: under('hook_try', 'hook', 'hook'), may: READ },
  pull: { rows: ACCOUNT, may: ALL },
  taken: { rows: ACCOUNT, may: ['SELECT', 'INSERT', 'DELETE'] },
  inbox: { rows: ACCOUNT, may: ALL },
  inbound: { rows: ACCOUNT, may: READ },
  upload: { rows: ACCOUNT, may: CHANGE },
  media: { rows: under('media', 'spec', 'spec'), may: ADD },
  endpoint_setting: { rows: ACCOUNT, may: ALL },
  own_number: { rows: ACCOUNT, may: READ },
  optout: { rows: ACCOUNT, may: ['SELECT', 'INSERT', 'DELETE'] },
  tally: { rows: under('tally', 'bulk', 'bulk'), may: ADD },
  tally_sum: { rows: under('tally_sum', 'bulk', 'bulk'), may: READ },
  link: { rows: ACCOUNT, may: ADD },
  link_message: { rows: ACCOUNT, may: READ },
  click: { rows: ofMessage('click'), may: READ },
  clicked: { rows: ofMessage('clicked'), may: READ },
  click_sum: { rows: under('click_sum', 'first', 'link', 'first'), may: READ },
  // The name of the installation stands in transaction ids; the key of the ids stands beside it and is nobody's.
  meta: { rows: `k = 'install'`, may: READ },
  // Names of carriers; the clock.
  lane: { rows: null, may: READ },
  high_water: { rows: null, may: READ },

  account: { rows: own('no'), may: [] },
  key: { rows: ACCOUNT, may: [] },
  held: { rows: ACCOUNT, may: [] },
  quota: { rows: ACCOUNT, may: [] },
  audit: { rows: ACCOUNT, may: [] },
  conversation: { rows: ACCOUNT, may: [] },
};

/** Not one row of these is about an account, and nobody's transactions but the owner's reach them. */
const OPEN = new Set(['schema_version', 'counter', 'mark', 'node', 'lane_lease']);

/** Nodes raise the wall one at a time. */
const WALL_LOCK = 0x7063_7761_6c6cn;
/** What others are in the way of is tried again. */
const TRIES = 5;

/** How far the wall stands. */
export interface Wall {
  /** What an account's transactions run as; null = there is no wall. */
  role: string | null;
  /** Why there is none and what to do, in one line; '' where there is one. */
  why: string;
}

/** The login sees no rows of others' tables: it must be their owner, or exempt. */
export class HiddenRows extends Error {
  override readonly name = 'HiddenRows';
}

const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 10);

/** The role that belongs to a login: no two installations share one, or either could enter as the other's accounts. */
export function roleOf(login: string): string {
  const name = `${login}_account`;
  return Buffer.byteLength(name) < 64 ? name : `postcard_${hash(login)}_account`;
}

interface Table {
  name: string;
  walled: boolean;
  policies: string[] | null;
  /** What the role may now. */
  may: Right[] | null;
  /** The login owns it, or may do as its owner. */
  ours: boolean;
}

interface State {
  login: string;
  role: string;
  there: boolean;
  /** The role is subject to policies. */
  bound: boolean;
  /** The login may act as the role. */
  member: boolean;
  tables: Table[];
  /** The role may reach the schema and the numbers of events. */
  reach: boolean;
}

/** Looks only. Null = no tables yet. */
async function stateOf(ask: Ask, schema: string): Promise<State | null> {
  const [who] = await ask.query<{ login: string }>('SELECT current_user::text AS login');
  const login = (who as { login: string }).login;
  const role = roleOf(login);
  const [found] = await ask.query<{ bound: boolean; member: boolean }>(
    // From 16 on there are members who may only give the membership on, such as who made the role.
    `SELECT NOT (rolsuper OR rolbypassrls) AS bound, pg_has_role(current_user, oid,
       CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END) AS member
     FROM pg_roles WHERE rolname = $1`,
    [role],
  );
  const tables = await ask.query<Table>(
    `SELECT c.relname::text AS name, c.relrowsecurity AS walled, pg_has_role(current_user, c.relowner, 'USAGE') AS ours,
       (SELECT array_agg(polname::text) FROM pg_policy WHERE polrelid = c.oid) AS policies,
       (SELECT array_agg(a.privilege_type) FROM aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
         WHERE r.rolname = $2) AS may
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname`,
    [schema, role],
  );
  if (!tables.some((table) => table.name === 'event')) return null;
  const [reach] = found
    ? await ask.query<{ reach: boolean }>(
        `SELECT has_schema_privilege($2::text, $1::text, 'USAGE') AND has_sequence_privilege($2::text, format('%I.event_no', $1::text), 'USAGE')
           AND has_sequence_privilege($2::text, format('%I.event_no', $1::text), 'SELECT') AS reach`,
        [schema, role],
      )
    : [];
  const { bound = false, member = false } = found ?? {};
  return { login, role, there: found !== undefined, bound, member, tables, reach: reach?.reach ?? false };
}

/** The name of a table's policy changes with its text. */
const policyOf = (table: string): { name: string; rows: string } | null => {
  const rows = RULES[table]?.rows ?? null;
  return rows === null ? null : { name: `wall_${hash(rows)}`, rows };
};

/** Whether rows of this table are to be hidden from all but the owner. */
const isWalled = (table: string): boolean => !OPEN.has(table) && RULES[table]?.rows !== null;

/** What a table lacks of its policy. */
function policyText({ name, walled, policies }: Table): string {
  const policy = policyOf(name);
  const stale = (policies ?? []).filter((one) => one.startsWith('wall_') && one !== policy?.name);
  return [
    ...(isWalled(name) && !walled ? [`ALTER TABLE ${quoted(name)} ENABLE ROW LEVEL SECURITY;`] : []),
    ...(policy !== null && !policies?.includes(policy.name)
      ? [`CREATE POLICY ${policy.name} ON ${quoted(name)} USING (${policy.rows});`]
      : []),
    ...stale.map((one) => `DROP POLICY ${quoted(one)} ON ${quoted(name)};`),
  ].join('\n');
}

function grantText({ name, may }: Table, role: string): string {
  const wanted = [...(RULES[name]?.may ?? [])].sort().join();
  if ([...(may ?? [])].sort().join() === wanted) return '';
  const revoke = may === null ? '' : `REVOKE ALL ON ${quoted(name)} FROM ${quoted(role)};`;
  return wanted === '' ? revoke : `${revoke} GRANT ${wanted} ON ${quoted(name)} TO ${quoted(role)};`;
}

const reachText = (schema: string, role: string): string =>
  `GRANT USAGE ON SCHEMA ${quoted(schema)} TO ${quoted(role)}; GRANT USAGE, SELECT ON SEQUENCE event_no TO ${quoted(role)};`;

const stands = (state: State): boolean =>
  state.there &&
  state.bound &&
  state.member &&
  state.reach &&
  state.tables.every((table) => policyText(table) === '' && grantText(table, state.role) === '');

const byHand = ({ login, role }: State): string =>
  `let a superuser run: CREATE ROLE ${quoted(role)} NOLOGIN; GRANT ${quoted(role)} TO ${quoted(login)};`;

/** For `postcard doctor`: how the wall stands, without touching it. Null = there are no tables yet. */
export async function inspectWall(ask: Ask, schema: string): Promise<Wall | null> {
  const state = await stateOf(ask, schema);
  if (state === null) return null;
  const without = (why: string): Wall => ({ role: null, why });
  if (!state.there) return without(`the role ${state.role} is not there; ${byHand(state)}`);
  if (!state.member) return without(`${state.login} may not act as ${state.role}; ${byHand(state)}`);
  if (!state.bound) return without(`${state.role} is a superuser or has BYPASSRLS; take that from it`);
  if (!stands(state)) return without('some of it is missing; the next start of a node raises it');
  return { role: state.role, why: '' };
}

/**
 * Raises what is missing (`connection` is outside a transaction, its search_path is `schema`). `fresh` = the tables were made a
 * moment ago and nobody works on them. Throws HiddenRows; resolves without a role where the server does not let us.
 */
export async function raiseWall(connection: Ask, schema: string, fresh: boolean): Promise<Wall> {
  let state = await stateOf(connection, schema);
  if (state === null) throw new Error('the schema has no tables');
  let why = '';
  if (!stands(state)) {
    // For another node as long as it may take, for a table not: who waits for it makes others wait.
    await connection.query(`SET lock_timeout = '60s'; SELECT pg_advisory_lock(${WALL_LOCK}); SET lock_timeout = '3s'`);
    try {
      state = (await stateOf(connection, schema)) as State;
      why = await raise(connection, schema, state, fresh);
      state = (await stateOf(connection, schema)) as State;
    } finally {
      await connection.query(`SELECT pg_advisory_unlock(${WALL_LOCK})`);
    }
  }
  const [hidden] = await connection.query<{ active: boolean }>(
    `SELECT row_security_active('message') OR row_security_active('meta') AS active`,
  );
  if (hidden?.active) {
    throw new HiddenRows(
      `the login ${state.login} does not own the tables, so row-level security hides their rows from it; log in as their owner, or: ALTER ROLE ${quoted(state.login)} BYPASSRLS`,
    );
  }
  if (!state.there || !state.member) return { role: null, why: why || byHand(state) };
  if (!stands(state)) {
    return { role: null, why: why || `${state.role} is a superuser or has BYPASSRLS; take that from it` };
  }
  return (await tried(connection, state.role))
    ? { role: state.role, why: '' }
    : { role: null, why: `${state.role} may do as the owner of the tables; take that membership from it` };
}

/** Makes what is missing; in words why something could not be made, '' = all was. */
async function raise(connection: Ask, schema: string, state: State, fresh: boolean): Promise<string> {
  const { login, role, tables } = state;
  try {
    if (!state.there) await connection.query(`CREATE ROLE ${quoted(role)} NOLOGIN NOINHERIT`).catch(unlessThere);
    if (!state.member) await retried(connection, `GRANT ${quoted(role)} TO ${quoted(login)}`);
  } catch (error) {
    if (!isForbidden(error)) throw error;
    // The policies stand all the same, if the tables are ours: the wall is whole as soon as the role is there.
    await raisePolicies(connection, tables, fresh).catch((second: unknown) => {
      if (!isForbidden(second)) throw second;
    });
    return byHand(state);
  }
  try {
    await raisePolicies(connection, tables, fresh);
    const grants = tables.map((table) => grantText(table, role)).join('\n');
    await retried(connection, state.reach ? grants || 'SELECT 1' : reachText(schema, role) + grants);
  } catch (error) {
    if (!isForbidden(error)) throw error;
    return `${login} does not own all the tables; let their owner start a node once`;
  }
  return '';
}

/** A table at a time: all of their locks at once would be in the way of nodes at work, and theirs in ours. */
async function raisePolicies(connection: Ask, tables: Table[], fresh: boolean): Promise<void> {
  const texts = tables.map(policyText).filter((text) => text !== '');
  for (const text of fresh && texts.length > 0 ? [texts.join('\n')] : texts) await retried(connection, text);
}

/** Somebody was in the way: a lock, or a role or grant written at the same moment ("tuple concurrently updated"). */
async function retried(connection: Ask, text: string): Promise<void> {
  for (let run = 1; ; run++) {
    try {
      await connection.query(text);
      return;
    } catch (error) {
      if (run === TRIES || !/^(40P01|55P03|XX000)$/.test(sqlState(error))) throw error;
    }
  }
}

const isForbidden = (error: unknown): boolean => sqlState(error) === '42501';

function unlessThere(error: unknown): void {
  // Another installation's node made it at the same moment.
  if (!/^(42710|23505)$/.test(sqlState(error))) throw error;
}

/** Whether the role is really shut in: it might own the tables by way of another role. */
async function tried(connection: Ask, role: string): Promise<boolean> {
  await connection.query('BEGIN');
  try {
    await connection.query(`SET LOCAL ROLE ${quoted(role)}`);
    const [row] = await connection.query<{ active: boolean }>(`SELECT row_security_active('message') AS active`);
    return row?.active === true;
  } finally {
    await connection.query('ROLLBACK');
  }
}
