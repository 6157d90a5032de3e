/** Handsets that send, and messages that are called back or moved: the sandbox with our own carrier and listener as its operator. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CarrierInbound, CarrierReport, Submission } from '../../domain/submission.ts';
import { type TestEnv, testEnv } from '../../env.ts';
import { readXml, textOf } from '../../xml.ts';
import { createMm7Listener, type Listener } from '../mm7/listener.ts';
import { createMm7Carrier } from '../mm7/mm7.ts';
import { printCancel, printReplace } from '../mm7/submit.ts';
import { type Sandbox, startSandbox } from './sandbox.ts';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
const HANDSET = '491700000001';

/** Sockets are real; how fast they are is the machine's business. */
const soon = <T>(look: () => T | Promise<T>): Promise<T> => vi.waitFor(look, { timeout: 30_000 });

let dir: string;
let env: TestEnv;
let listener: Listener;
let sandbox: Sandbox;
let inbound: CarrierInbound[];
let reports: CarrierReport[];
/** What the next calls of `onInbound` do; then they take it. */
let failures: number;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sandbox-'));
  env = testEnv();
  inbound = [];
  reports = [];
  failures = 0;
  listener = await createMm7Listener({
    host: '127.0.0.1',
    port: 0,
    carriers: [{ name: 'sandbox' }],
    onReport: async (report) => void reports.push(report),
    onInbound: async (message) => {
      if (failures > 0) {
        failures--;
        throw new Error('disk full');
      }
      return { id: String(inbound.push(message)) };
    },
    env,
  });
  sandbox = await start();
});
afterEach(async () => {
  await sandbox.close();
  await listener.close();
  rmSync(dir, { recursive: true, force: true });
});

function start(): Promise<Sandbox> {
  const reportUrl = `${listener.url}/mm7/sandbox`;
  return startSandbox({ host: '127.0.0.1', port: 0, file: join(dir, 'sandbox.db'), reportUrl, env });
}

interface Answer {
  status: number;
  body: Record<string, unknown> & { violations?: { property: string; violation: string }[] };
}

async function sends(body: unknown, msisdn = HANDSET): Promise<Answer> {
  const response = await fetch(`${sandbox.url}/sandbox/handsets/${msisdn}/messages`, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

const counters = async (): Promise<Record<string, number>> => {
  const about = (await (await fetch(`${sandbox.url}/sandbox`)).json()) as { counters: Record<string, number> };
  return about.counters;
};

const text = { contentType: 'text/plain; charset=utf-8', text: 'grüße 😀' };
const good = { to: ['441134960000'], subject: 'A & B', parts: [text] };

describe('a handset that sends', () => {
  it('is told of by a DeliverReq with all that it sent', async () => {
    const picture = Buffer.from([0xff, 0xd8, 0xff, 0, 13, 10, 45, 45]);
    const answer = await sends({
      to: ['+441134960000', '12345'],
      cc: ['441134960009'],
      subject: 'A & B',
      parts: [text, { contentType: 'image/jpeg', contentId: 'p 1.jpg', base64: picture.toString('base64') }],
    });
    expect(answer.status).toBe(400);
    const right = await sends({
      to: ['+441134960000', '12345'],
      cc: ['441134960009'],
      subject: 'A & B',
      parts: [text, { contentType: 'image/jpeg', contentId: 'p.jpg', base64: picture.toString('base64') }],
    });
    expect(right).toMatchObject({ status: 202, body: { from: HANDSET, to: ['441134960000', '12345'] } });
    await soon(() => expect(inbound).toHaveLength(1));
    expect(inbound[0]).toMatchObject({
      carrier: 'sandbox',
      channel: 'MMS',
      from: HANDSET,
      to: ['441134960000', '12345'],
      cc: ['441134960009'],
      subject: 'A & B',
      at: env.clock.now(),
      parts: [
        { contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('grüße 😀') },
        { contentType: 'image/jpeg', contentId: 'p.jpg', bytes: picture },
      ],
    });
    expect(inbound[0]?.id).toContain(right.body.id as string);
    await soon(async () =>
      expect(await counters()).toMatchObject({ sentByHandsets: 1, deliverReqTaken: 1, deliverReqWaiting: 0 }),
    );
  });

  it('writes its texts in the charset that is named, or names UTF-8', async () => {
    const of = (contentType: string, written: string) => ({ contentType, text: written });
    const parts = [
      of('text/plain; charset=ISO-8859-1', 'grüße'),
      of('text/plain; charset="iso-8859-1"', '😀'),
      of('text/plain; charset=us-ascii', 'hi'),
      of('text/plain; charset=us-ascii', 'ü'),
      of('text/plain', 'ü'),
    ];
    expect((await sends({ ...good, parts })).status).toBe(202);
    await soon(() => expect(inbound).toHaveLength(1));
    expect(
      inbound[0]?.parts.map(({ contentType, bytes }) => [contentType, Buffer.from(bytes).toString('latin1')]),
    ).toEqual([
      ['text/plain; charset=iso-8859-1', 'gr\u00fc\u00dfe'],
      ['text/plain; charset=utf-8', Buffer.from('😀').toString('latin1')],
      ['text/plain; charset=us-ascii', 'hi'],
      ['text/plain; charset=utf-8', Buffer.from('ü').toString('latin1')],
      ['text/plain', Buffer.from('ü').toString('latin1')],
    ]);
  });

  it('is told of again, with the same bytes, until it is taken', async () => {
    failures = 2;
    await sends(good);
    for (const [tries, after] of [
      [1, 1_000],
      [2, 2_000],
    ] as const) {
      await soon(async () => expect(await counters()).toMatchObject({ deliverReqInVain: tries }));
      expect(inbound).toEqual([]);
      await env.clock.advance(after);
    }
    await soon(() => expect(inbound).toHaveLength(1));
    await soon(async () => expect(await counters()).toMatchObject({ deliverReqTaken: 1, deliverReqWaiting: 0 }));
  });

  it('is not forgotten over a restart', async () => {
    failures = 1;
    await sends(good);
    await soon(async () => expect(await counters()).toMatchObject({ deliverReqInVain: 1 }));
    await sandbox.close();
    sandbox = await start();
    await env.clock.advance(1_000);
    await soon(() => expect(inbound).toHaveLength(1));
  });

  it('gives up after 48 h', async () => {
    failures = Number.POSITIVE_INFINITY;
    await sends(good);
    await soon(async () => expect((await counters()).deliverReqInVain).toBe(1));
    await env.clock.advance(48 * 3_600_000);
    await soon(async () => {
      await env.clock.advance(300_000);
      expect(await counters()).toMatchObject({ deliverReqGivenUp: 1, deliverReqWaiting: 0 });
    });
  });

  it.each<[string, unknown, string, string]>([
    ['not JSON', '{', '', 'must be JSON in UTF-8'],
    ['no object', [1], '', 'must be an object'],
    ['no to', { parts: [text] }, 'to', 'must not be null'],
    ['an empty to', { ...good, to: [] }, 'to', 'size must be between 1 and 20'],
    ['to as text', { ...good, to: '1' }, 'to', 'must be an array of numbers as text, like ["441134960000"]'],
    [
      'a number as number',
      { ...good, to: [441134960000] },
      'to[0]',
      'must be 3 to 15 digits, as text, with or without +',
    ],
    ['a bad cc', { ...good, cc: ['x'] }, 'cc[0]', 'must be 3 to 15 digits, as text, with or without +'],
    ['a bad subject', { ...good, subject: 5 }, 'subject', 'must be a string'],
    ['no parts', { to: ['123'] }, 'parts', 'must not be null'],
    ['empty parts', { ...good, parts: [] }, 'parts', 'size must be between 1 and 25'],
    ['a part that is none', { ...good, parts: ['x'] }, 'parts[0]', 'must be an object'],
    ['no type', { ...good, parts: [{ text: 'x' }] }, 'parts[0].contentType', 'must be a media type, like image/jpeg'],
    [
      'a type that breaks out',
      { ...good, parts: [{ contentType: 'a/b\r\nX: y', text: 'x' }] },
      'parts[0].contentType',
      'must be a media type, like image/jpeg',
    ],
    ['nothing in a part', { ...good, parts: [{ contentType: 'a/b' }] }, 'parts[0]', 'must have either text or base64'],
    [
      'both in a part',
      { ...good, parts: [{ contentType: 'a/b', text: 'x', base64: 'eA==' }] },
      'parts[0]',
      'must have either text or base64',
    ],
    [
      'base64 that is none',
      { ...good, parts: [{ contentType: 'a/b', base64: 'x' }] },
      'parts[0].base64',
      'must be base64 without line breaks',
    ],
  ])('with %s is told what is wrong', async (_, body, property, violation) => {
    const answer = await sends(body);
    expect(answer.status).toBe(400);
    expect(answer.body.violations).toEqual([{ property, violation }]);
    expect(await counters()).toMatchObject({ sentByHandsets: 0 });
  });

  it('is told all that is wrong at once', async () => {
    const { body } = await sends({ to: ['x'], subject: 1, parts: [{}] });
    expect(body.violations?.map(({ property }) => property)).toEqual([
      'to[0]',
      'subject',
      'parts[0].contentType',
      'parts[0]',
    ]);
  });
});

describe('a message that was submitted', () => {
  const config = {
    name: 'sandbox',
    namespace: NS,
    version: '6.8.0',
    vaspId: 'me',
    transferEncoding: 'binary',
    concurrency: 2,
    timeoutMs: 30_000,
  } as const;
  const never = new AbortController().signal;

  async function submitted(to: string, tx = 'tx-1'): Promise<{ id: string; cancel(): Promise<boolean | undefined> }> {
    const carrier = createMm7Carrier({ ...config, url: `${sandbox.url}/mm7` }, env);
    const submission: Submission = {
      transactionId: tx,
      sender: '441134960000',
      recipients: [to],
      parts: [{ contentId: 't.txt', contentType: 'text/plain', bytes: Buffer.from('hi') }],
      validUntil: env.clock.now() + 86_400_000,
    };
    const outcome = await carrier.submit(submission, never);
    if (outcome.kind !== 'accepted') throw new Error(JSON.stringify(outcome));
    const id = outcome.carrierMessageId;
    return {
      id,
      cancel: () =>
        carrier.cancel?.(id, { transactionId: tx, sender: '441134960000' }, never) ?? Promise.resolve(undefined),
    };
  }

  async function amend(body: string): Promise<{ operation: string; code: string }> {
    const response = await fetch(`${sandbox.url}/mm7`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'text/xml' },
    });
    const xml = readXml(await response.text());
    if (!xml.ok) throw new Error(xml.fault);
    const answer = xml.root.children.at(-1)?.children[0];
    return { operation: answer?.name ?? '', code: (answer && textOf(answer, 'Status', 'StatusCode')) ?? '' };
  }

  it('can be called back until it has reached somebody, and is not delivered then', async () => {
    const { cancel } = await submitted(HANDSET);
    expect(await cancel()).toBe(true);
    await env.clock.advance(5_000);
    expect(await counters()).toMatchObject({ taken: 1, canceled: 1, delivered: 0, reported: 0, pending: 0 });
    expect(reports).toEqual([]);
  });

  it('that was delivered cannot be called back', async () => {
    const { cancel } = await submitted(HANDSET);
    await env.clock.advance(1_000);
    await soon(() => expect(reports).toHaveLength(1));
    expect(await cancel()).toBe(false);
    expect(await counters()).toMatchObject({ canceled: 0, delivered: 1 });
  });

  it('of another VASP, or unknown, is not found', async () => {
    const { id } = await submitted(HANDSET);
    const earlier = { transactionId: 'c', sender: '441134960000' };
    expect(await amend(printCancel(config, { ...earlier, carrierMessageId: 'nope' }))).toEqual({
      operation: 'CancelRsp',
      code: '2005',
    });
    expect(await amend(printCancel({ ...config, vaspId: 'other' }, { ...earlier, carrierMessageId: id }))).toEqual({
      operation: 'CancelRsp',
      code: '2005',
    });
  });

  it('that never reaches anybody can be called back', async () => {
    const { cancel } = await submitted('491700009905');
    expect(await cancel()).toBe(true);
  });

  it('can be moved, and is delivered then', async () => {
    const { id } = await submitted(HANDSET);
    const earliestAt = Math.ceil(env.clock.now() / 1000) * 1000 + 3_600_000;
    const moved = { transactionId: 'r', sender: '441134960000', carrierMessageId: `<${id}>`, earliestAt };
    expect(await amend(printReplace(config, moved))).toEqual({ operation: 'ReplaceRsp', code: '1000' });
    await env.clock.advance(60_000);
    expect(await counters()).toMatchObject({ delivered: 0, pending: 1 });
    await env.clock.advance(earliestAt + 1_000 - env.clock.now());
    await soon(() => expect(reports).toMatchObject([{ kind: 'retrieved', carrierMessageId: id }]));
  });
});
