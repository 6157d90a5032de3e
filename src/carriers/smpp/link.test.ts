import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { type Clock, testEnv } from '../../env.ts';
import { HANDLER_MS, Link, type LinkOptions, type Settled } from './link.ts';
import { ANSWER, COMMAND, decode, encode, Framer, type Pdu, STATUS, shortMessage } from './pdu.ts';

/** The other end of a link, as a test holds it. */
class Wire extends Duplex {
  readonly sent: Pdu[] = [];
  private readonly framer = new Framer();

  override _read(): void {}

  override _write(chunk: Buffer, _: BufferEncoding, done: () => void): void {
    this.framer.push(chunk, (bytes) => {
      const read = decode(bytes);
      if (!read.ok) throw new Error(read.why);
      this.sent.push(read.pdu);
    });
    done();
  }

  say(pdu: Pdu): void {
    this.push(encode(pdu));
  }
}

function deliver(sequence: number): Pdu {
  return {
    command: COMMAND.deliver,
    status: 0,
    sequence,
    ...shortMessage({ shortMessage: Buffer.from(`${sequence}`) }),
  };
}

function linkOn(wire: Wire, more: Partial<LinkOptions> = {}): { link: Link; closed: string[] } {
  const closed: string[] = [];
  const link = new Link({
    socket: wire,
    env: testEnv(),
    answerMs: 10_000,
    enquireMs: 30_000,
    onRequest: () => ({ status: STATUS.ok, body: { kind: 'named', id: '', tlvs: [] } }),
    onClose: (why) => closed.push(why),
    ...more,
  });
  return { link, closed };
}

describe('a link', () => {
  it('of a process that stood still reads what lies in the socket before it judges the peer', async () => {
    let now = 0;
    const due: { fn: () => void; at: number; live: boolean }[] = [];
    const clock: Clock = {
      now: () => now,
      monotonic: () => now,
      setTimeout(fn, ms) {
        const timer = { fn, at: now + ms, live: true };
        due.push(timer);
        return {
          cancel: () => {
            timer.live = false;
          },
        };
      },
      sleep: () => Promise.reject(new Error('nobody sleeps here')),
    };
    const fire = (): void => {
      for (const timer of due.filter((one) => one.live && one.at <= now)) {
        timer.live = false;
        timer.fn();
      }
    };
    const wire = new Wire();
    const { link, closed } = linkOn(wire, { env: { ...testEnv(), clock } });
    const settled: Settled[] = [];
    link.request(COMMAND.submit, shortMessage({}), (one) => settled.push(one));
    await new Promise((resolve) => setImmediate(resolve));
    // Ten minutes of SIGSTOP: timers run before the socket is read, in which the answer has long been.
    now = 600_000;
    fire();
    expect(settled).toEqual([]);
    wire.say({ command: ANSWER + COMMAND.submit, status: 0, sequence: 1, kind: 'named', id: '7', tlvs: [] });
    now += 100;
    fire();
    expect(settled).toMatchObject([{ kind: 'answer', pdu: { id: '7' } }]);
    expect(closed).toEqual([]);
    link.close('done');
  });

  it('reads no more than it can work off, asks for repetition of what takes too long, and goes on', async () => {
    const env = testEnv();
    const wire = new Wire({ highWaterMark: 1_000_000 });
    let started = 0;
    const { link, closed } = linkOn(wire, {
      env,
      onRequest: () => {
        started++;
        return started <= 500
          ? new Promise(() => {})
          : { status: STATUS.ok, body: { kind: 'named', id: '', tlvs: [] } };
      },
    });
    for (let n = 1; n <= 600; n++) wire.say(deliver(n));
    await env.clock.settle();
    expect(started).toBe(500);
    await env.clock.advance(HANDLER_MS);
    await env.clock.settle();
    expect(started).toBe(600);
    const statuses = wire.sent.map((pdu) => pdu.status);
    expect(statuses.filter((status) => status === STATUS.tryAgain).length).toBe(500);
    expect(statuses.filter((status) => status === STATUS.ok).length).toBe(100);
    expect(closed).toEqual([]);
    link.close('done');
  });

  it('is not given up while it does not read', async () => {
    const env = testEnv();
    const wire = new Wire({ highWaterMark: 1_000_000 });
    const { link, closed } = linkOn(wire, {
      env,
      answerMs: 2_000,
      enquireMs: 3_000,
      onRequest: () => new Promise(() => {}),
    });
    for (let n = 1; n <= 500; n++) wire.say(deliver(n));
    await env.clock.settle();
    wire.say({ command: COMMAND.enquireLink, status: 0, sequence: 9_999, kind: 'bare' });
    await env.clock.advance(HANDLER_MS - 1_000);
    expect(closed).toEqual([]);
    await env.clock.advance(1_500);
    await env.clock.settle();
    expect(wire.sent.some((pdu) => pdu.command === ANSWER + COMMAND.enquireLink)).toBe(true);
    expect(closed).toEqual([]);
    link.close('done');
  });

  it('leaves a peer that does not end a PDU that it began, not one that always begins the next', async () => {
    const env = testEnv();
    const wire = new Wire();
    const { closed } = linkOn(wire, { env });
    const one = encode(deliver(1));
    const half = Math.floor(one.length / 2);
    wire.push(one.subarray(0, half));
    for (let n = 0; n < 60; n++) {
      await env.clock.advance(1_000);
      wire.push(Buffer.concat([one.subarray(half), one.subarray(0, half)]));
      await env.clock.settle();
    }
    expect(closed).toEqual([]);
    // A byte now and then is a sign of life, and yet nothing will ever come of it.
    for (let n = 0; n < 12 && closed.length === 0; n++) {
      await env.clock.advance(1_000);
      if (n < 8) wire.push(one.subarray(half + n, half + n + 1));
      await env.clock.settle();
    }
    expect(closed).toEqual(['the peer does not end a PDU that it began']);
  });

  it('passes over numbers that still wait when they begin anew', async () => {
    const wire = new Wire();
    const { link } = linkOn(wire, { firstSequence: 0x7fffffff });
    const settled: string[] = [];
    for (let i = 0; i < 3; i++) link.request(COMMAND.submit, shortMessage({}), (one) => settled.push(one.kind));
    await new Promise((resolve) => setImmediate(resolve));
    expect(wire.sent.map((pdu) => pdu.sequence)).toEqual([0x7fffffff, 1, 2]);
    link.close('done');
    expect(settled).toEqual(['lost', 'lost', 'lost']);
    expect(link.request(COMMAND.submit, shortMessage({}), () => expect.unreachable())).toBe(false);
  });
});
