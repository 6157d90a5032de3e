/**
 * An MMSC that refuses every MMS and SMSCs of the npm package `smpp`, over real sockets and files: each way to send a long text,
 * each alphabet, each form of receipts, throttling, a bind that drops in mid-window, one that falls silent, and the figures.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import smpp, { type PeerPdu, type PeerSession } from 'smpp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { doctor } from '../../src/cli/doctor.ts';
import type { Io } from '../../src/cli/terminal.ts';
import type { Config } from '../../src/config.ts';
import { realEnv } from '../../src/env.ts';
import type { Running } from '../../src/main.ts';
import { configOf, headersOf, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
const dir = mkdtempSync(join(tmpdir(), 'postcard-smpp-'));

interface Report {
  messageId: string;
  to: string;
  status: { id: number };
  error: { id: number };
  messageCount: number;
  channel?: string;
}
/** A text as the SMSC put it together. */
interface Got {
  system: string;
  from: string;
  to: string;
  text: string;
  pdus: number;
  coding: number;
}
/** Who is bound as whom, and what it does. */
interface Smsc {
  sessions: Set<PeerSession>;
  submits: PeerPdu[];
  /** Statuses to answer with, before it takes anything. */
  statuses: number[];
  /** Reads and does not answer. */
  mute: boolean;
  /** Does not answer enquire_link either. */
  dead: boolean;
}

const got: Got[] = [];
const smscs = new Map<string, Smsc>();
const pieces = new Map<string, string[]>();
let ids = 0xa0;
let running: Running;
let config: Config;
let customer: Peer;
let mmsc: Peer;
let smscServer: Server;

/** How this SMSC writes ids, and tells what became of a message. */
const RECEIPTS: Record<string, (id: number) => { id: string; fields: Record<string, unknown> }> = {
  udh: (id) => ({
    id: `M${id}`,
    fields: {
      short_message: `id:M${id} sub:001 dlvrd:001 submit date:2601011200 done date:2601011201 stat:DELIVRD err:000`,
    },
  }),
  // Hexadecimal answers, decimal receipts.
  sar: (id) => ({
    id: id.toString(16).toUpperCase(),
    fields: { short_message: `id:${id} stat:DELIVRD err:000 text:` },
  }),
  // Nothing but TLVs.
  payload: (id) => ({
    id: `00${id}`,
    fields: { short_message: '', receipted_message_id: String(id), message_state: 2 },
  }),
  // Text in another order and spelling, as some write it.
  latin: (id) => ({ id: `uuid-${id}`, fields: { short_message: `STAT:delivrd ID:UUID-${id} Err:0` } }),
};

const smscOf = (system: string): Smsc => {
  const known = smscs.get(system);
  if (known) return known;
  const made: Smsc = { sessions: new Set(), submits: [], statuses: [], mute: false, dead: false };
  smscs.set(system, made);
  return made;
};

function textOf(field: unknown): { text: string; udh: Buffer | null } {
  const { message, udh } = field as { message: string | Buffer; udh?: Buffer[] };
  return { text: message.toString(), udh: udh?.[0] ?? null };
}

/** Takes a submit_sm; the whole text lies in `got` once all its pieces are there. */
function take(system: string, session: PeerSession, pdu: PeerPdu): void {
  const smsc = smscOf(system);
  smsc.submits.push(pdu);
  if (smsc.mute) return;
  const status = smsc.statuses.shift();
  if (status !== undefined) return void session.send(pdu.response({ command_status: status }));
  const number = ++ids;
  const { id, fields } = (RECEIPTS[system] as (typeof RECEIPTS)[string])(number);
  session.send(pdu.response({ message_id: id }));
  const [from, to] = [String(pdu.source_addr), String(pdu.destination_addr)];
  const whole = textOf(pdu.short_message);
  const inPayload = pdu.message_payload === undefined ? null : textOf(pdu.message_payload).text;
  const [reference, total, place] = whole.udh
    ? [whole.udh[2], whole.udh[3], whole.udh[4]]
    : [pdu.sar_msg_ref_num, pdu.sar_total_segments, pdu.sar_segment_seqnum];
  const key = [system, to, reference].join();
  const list = pieces.get(key) ?? [];
  list[Number(place ?? 1) - 1] = inPayload ?? whole.text;
  pieces.set(key, list);
  if (list.filter((one) => one !== undefined).length < Number(total ?? 1)) return;
  pieces.delete(key);
  got.push({ system, from, to, text: list.join(''), pdus: list.length, coding: Number(pdu.data_coding) });
  if (pdu.registered_delivery !== 1) return;
  session.deliver_sm({ esm_class: 4, source_addr: to, destination_addr: from, ...fields }, () => undefined);
}

beforeAll(async () => {
  customer = await openPeer();
  mmsc = await openPeer(({ body }, response) => {
    const transaction = /TransactionID[^>]*>([^<]*)</.exec(body)?.[1] ?? '';
    response.setHeader('content-type', 'text/xml');
    response.end(
      `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID xmlns="${NS}">${transaction}</TransactionID></e:Header><e:Body><SubmitRsp xmlns="${NS}"><MM7Version>6.8.0</MM7Version><Status><StatusCode>2003</StatusCode><StatusText>no MMS here</StatusText></Status></SubmitRsp></e:Body></e:Envelope>`,
    );
  });
  smscServer = smpp.createServer((session) => {
    let system = '';
    session.on('error', () => undefined);
    session.on('bind_transceiver', (pdu) => {
      system = String(pdu.system_id);
      if (pdu.password !== 'secret') return void session.send(pdu.response({ command_status: 0x0e }));
      smscOf(system).sessions.add(session);
      session.send(pdu.response({ system_id: 'npm' }));
    });
    session.on('submit_sm', (pdu) => take(system, session, pdu));
    session.on('enquire_link', (pdu) => void (smscOf(system).dead || session.send(pdu.response())));
    session.on('unbind', (pdu) => void session.send(pdu.response()));
    session.on('close', () => smscOf(system).sessions.delete(session));
  });
  smscServer.listen(0, '127.0.0.1');
  await once(smscServer, 'listening');
  const smsc = (name: string, more: string): string => `
  - name: ${name}
    type: smpp
    host: 127.0.0.1
    port: ${(smscServer.address() as AddressInfo).port}
    systemId: ${name}
    password: secret
    timeoutMs: 1500
    enquireLinkMs: 1000
    onUnknown: retry
${more}`;
  writeFileSync(
    join(dir, 'postcard.yaml'),
    `carriers:
  - { name: mmsc, type: mm7, url: "${mmsc.url}/mm7", namespace: "${NS}" }
${smsc('udh', '    binds: 2\n    window: 4')}
${smsc('sar', '    concatenation: sar\n    ratePerSecond: 20')}
${smsc('payload', '    concatenation: payload\n    receiptIdForm: as-is')}
${smsc('latin', '    encoding: { default: latin1 }')}
routes:
  - { to: 441, carriers: [mmsc, udh] }
  - { to: 442, carriers: [mmsc, sar] }
  - { to: 443, carriers: [mmsc, payload] }
  - { to: 444, carriers: [mmsc, latin] }
`,
  );
  const sources = sourcesIn(dir, {
    POSTCARD_SANDBOX: 'false',
    POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
    POSTCARD_LOG_LEVEL: 'error',
  });
  config = configOf(sources);
  running = await startFrom(sources);
});

afterAll(async () => {
  await running?.stop();
  for (const { sessions } of smscs.values()) for (const session of sessions) session.destroy();
  for (const peer of [customer, mmsc, smscServer]) peer?.close();
  rmSync(dir, { recursive: true, force: true });
});

async function send(to: string[], text: string): Promise<string[]> {
  const response = await fetch(`${running.url}/mms/2/messages`, {
    method: 'POST',
    body: JSON.stringify({
      messages: [
        {
          sender: 'Shop',
          destinations: to.map((one) => ({ to: one })),
          content: { messageSegments: [{ type: 'TEXT', text: 'hi' }] },
          options: { smsFailover: { text, sender: '447700900500' } },
          webhooks: { delivery: { url: customer.url } },
        },
      ],
    }),
    headers: headersOf(),
  });
  expect(response.status).toBe(200);
  return ((await response.json()) as { messages: { messageId: string }[] }).messages.map(({ messageId }) => messageId);
}

const final = (id: string): Promise<Report> =>
  until(() => customer.results<Report>().find((one) => one.messageId === id), `the report of ${id}`);

let numbers = 0;
const number = (prefix: string): string => `${prefix}${String(1_000_000 + ++numbers)}`;

const GSM_LONG = `${'The quick brown fox. '.repeat(20)}€`;
const TEXTS: [string, string, number][] = [
  ['short', 'Grüße @ $ [ é', 1],
  ['long', GSM_LONG, 3],
  ['in Cyrillic', 'Ваша посылка придёт сегодня. '.repeat(4), 2],
  ['with emoji at the cut', `${'a'.repeat(66)}😀${'b'.repeat(66)}👩‍👩‍👧`, 3],
];

describe('a text', () => {
  it.each(
    (['441', '442', '443'] as const).flatMap((prefix, n) =>
      TEXTS.map(([name, text, count]) => [name, ['udh', 'sar', 'payload'][n] as string, prefix, text, count] as const),
    ),
  )('%s by %s arrives whole, and its receipt ends it', async (_, system, prefix, text, count) => {
    const to = number(prefix);
    const [id] = (await send([to], text)) as [string];
    const report = await final(id);
    expect(report).toMatchObject({ channel: 'SMS', messageCount: count, status: { id: 5 } });
    const arrived = got.filter((one) => one.to === to);
    expect(arrived).toMatchObject([{ system, from: '447700900500', text }]);
    expect(arrived[0]?.pdus).toBe(system === 'payload' ? 1 : count);
  });

  it('goes in the alphabet that the SMSC takes for its own', async () => {
    const [plain, greek] = [number('444'), number('444')];
    const ids = [...(await send([plain], 'Grüße')), ...(await send([greek], 'ΓΔ'))];
    for (const id of ids) expect((await final(id)).status.id).toBe(5);
    expect(got.find(({ to }) => to === plain)).toMatchObject({ coding: 0 });
    // In GSM 03.38 and not in Latin-1.
    expect(got.find(({ to }) => to === greek)).toMatchObject({ coding: 8, text: 'ΓΔ' });
  });
});

describe('an SMSC in trouble', () => {
  it.each([0x58, 0x14])('that answers %i is given time, and gets each text once', async (status) => {
    smscOf('udh').statuses.push(status, status);
    const to = [number('441'), number('441'), number('441'), number('441')];
    for (const id of await send(to, 'slow down')) expect((await final(id)).status.id).toBe(5);
    for (const one of to) expect(got.filter((text) => text.to === one)).toHaveLength(1);
  });

  it('whose binds drop in mid-window is bound again, and each text that was out is told the truth of', async () => {
    const smsc = smscOf('udh');
    smsc.mute = true;
    const before = smsc.submits.length;
    const to = Array.from({ length: 8 }, () => number('441'));
    const ids = await send(to, 'dropped');
    await until(() => smsc.submits.length - before >= 8, 'eight texts at the SMSC');
    smsc.mute = false;
    for (const session of smsc.sessions) session.destroy();
    // By `onUnknown: retry` they are sent once more, and end as delivered.
    for (const id of ids) expect((await final(id)).status.id).toBe(5);
    for (const one of to) expect(got.filter((text) => text.to === one)).toHaveLength(1);
  });

  it('that falls silent is left and found again', async () => {
    const smsc = smscOf('payload');
    Object.assign(smsc, { mute: true, dead: true });
    const [old] = smsc.sessions;
    const [id] = (await send([number('443')], 'anybody there?')) as [string];
    await until(() => old && !smsc.sessions.has(old), 'the end of the silent bind');
    Object.assign(smsc, { mute: false, dead: false });
    expect((await final(id)).status.id).toBe(5);
  });
});

describe('the operator', () => {
  it('sees how the binds do', async () => {
    await until(() => smscOf('udh').sessions.size === 2, 'both binds');
    const page = await (await fetch(`${running.url}/metrics`)).text();
    expect(page).toMatch(/^postcard_smpp_binds\{carrier="udh",figure="wanted"\} 2$/m);
    expect(page).toMatch(/^postcard_smpp_binds\{carrier="udh",figure="bound"\} 2$/m);
    expect(page).toMatch(/^postcard_smpp_binds\{carrier="sar",figure="outstanding"\} 0$/m);
  });

  it('is told by the doctor which SMSC can be reached, and why not', async () => {
    const lines = async (carriers: Config['carriers']): Promise<Record<string, unknown>[]> => {
      let out = '';
      const io: Io = {
        out: (text) => {
          out += text;
        },
        err: () => undefined,
        ...{ env: {}, cwd: dir, tty: false, stop: new AbortController().signal },
        readFile: () => {
          throw new Error('no file');
        },
      };
      await doctor(io, realEnv({ level: 'silent' }), { ...config, carriers }, 'json');
      return (JSON.parse(out) as { check: string }[]).filter(({ check }) => check.startsWith('smsc '));
    };
    const [udh] = config.carriers.filter(({ name }) => name === 'udh') as [Config['carriers'][number]];
    expect(await lines([udh])).toMatchObject([{ check: 'smsc udh', result: 'ok' }]);
    expect(
      await lines([
        { ...udh, tls: true, connectTimeoutMs: 1_000 } as typeof udh,
        { ...udh, name: 'gone', port: 1 } as typeof udh,
      ]),
    ).toMatchObject([
      { check: 'smsc udh', result: 'fail', found: expect.stringMatching(/it does not speak TLS|hung up|not within/) },
      { check: 'smsc gone', result: 'fail', found: expect.stringContaining('nobody listens there') },
    ]);
  });
});
