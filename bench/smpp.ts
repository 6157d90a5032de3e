/**
 * What an SMS costs our SMPP carrier and the npm package `smpp`, in CPU of the process that sends. Both send the same texts over one
 * bind with the same window to the same peer, a bare socket that answers by copying numbers; each in processes of their own, in
 * turns, so that the machine treats both alike. The carrier does all that its contract asks (splitting, ids, abort signals), the
 * package only its PDUs, strings and callbacks; "codec" is the PDUs alone.
 *
 *   node bench/smpp.ts [--messages 50000] [--turns 5] [--window 50]
 */
import { execFile, fork } from 'node:child_process';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import smpp from 'smpp';
import { decode, encode, type Pdu } from '../src/carriers/smpp/pdu.ts';
import { createSmppCarrier } from '../src/carriers/smpp/smpp.ts';
import { encodeSms, type TextOptions } from '../src/carriers/smpp/text.ts';
import type { SmsSubmission } from '../src/domain/submission.ts';
import { realEnv } from '../src/env.ts';

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '50000' },
    turns: { type: 'string', default: '5' },
    window: { type: 'string', default: '50' },
    role: { type: 'string' },
    port: { type: 'string', default: '0' },
  },
});
const MESSAGES = Number(values.messages);
const TURNS = Number(values.turns);
const WINDOW = Number(values.window);
const PORT = Number(values.port);
const TEXT = 'Your parcel comes today between 14:00 and 16:00. Reply STOP to hear no more of it.';
const SUBMIT = 0x04;

function recipient(n: number): string {
  return `4477009${String(n % 100_000).padStart(5, '0')}`;
}

/** CPU of this process, and time, for `work`. The first tenth is not counted: it is compiled while it runs. */
async function measured(work: (from: number, to: number) => Promise<void>): Promise<void> {
  await work(0, Math.ceil(MESSAGES / 10));
  const cpu = process.cpuUsage();
  const began = performance.now();
  await work(0, MESSAGES);
  const { user, system } = process.cpuUsage(cpu);
  console.log(
    JSON.stringify({ cpuUs: (user + system) / MESSAGES, perSecond: (MESSAGES / (performance.now() - began)) * 1000 }),
  );
}

/** Answers a bind and every submit_sm with the least work that can be done. */
function peer(): void {
  const ids = Buffer.from('00000000\0');
  const server = createServer((socket) => {
    let rest = Buffer.alloc(0);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      rest = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
      const answers: Buffer[] = [];
      let at = 0;
      while (rest.length - at >= 16 && rest.length - at >= rest.readUInt32BE(at)) {
        const command = rest.readUInt32BE(at + 4);
        if (command < 0x80000000) {
          const named = command === SUBMIT || (command <= 0x09 && command !== 0x06);
          const answer = Buffer.allocUnsafe(named ? 16 + ids.length : 16);
          answer.writeUInt32BE(answer.length, 0);
          answer.writeUInt32BE(command + 0x80000000, 4);
          answer.writeUInt32BE(0, 8);
          rest.copy(answer, 12, at + 12, at + 16);
          if (named) answer.set(ids, 16);
          answers.push(answer);
        }
        at += rest.readUInt32BE(at);
      }
      rest = rest.subarray(at);
      if (answers.length > 0) socket.write(Buffer.concat(answers));
    });
  });
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as { port: number }).port));
  process.on('disconnect', () => process.exit(0));
}

/** Keeps `WINDOW` calls of `send` open until all have ended. */
function windowed(from: number, to: number, send: (n: number, done: () => void) => void): Promise<void> {
  return new Promise((resolve) => {
    let next = from;
    let open = 0;
    const more = (): void => {
      while (open < WINDOW && next < to) {
        open++;
        send(next++, () => {
          open--;
          if (next >= to && open === 0) resolve();
          else more();
        });
      }
    };
    more();
  });
}

function submission(n: number): SmsSubmission {
  const validUntil = Date.now() + 48 * 3_600_000;
  return { transactionId: `bench-${n}`, sender: 'Postcard', recipient: recipient(n), text: TEXT, validUntil };
}

async function ours(): Promise<void> {
  const carrier = createSmppCarrier(
    { name: 'bench', host: '127.0.0.1', port: PORT, systemId: 'bench', password: 'x', window: WINDOW },
    { onReport: async () => {}, onInbound: async () => {} },
    realEnv({ level: 'silent' }),
  );
  await measured((from, to) =>
    windowed(from, to, (n, done) => {
      void carrier.submit(submission(n), new AbortController().signal).then((outcome) => {
        if (outcome.kind !== 'accepted') throw new Error(JSON.stringify(outcome));
        done();
      });
    }),
  );
  await carrier.close();
}

async function theirs(): Promise<void> {
  const session = await new Promise<ReturnType<typeof smpp.connect>>((resolve) => {
    const made = smpp.connect({ host: '127.0.0.1', port: PORT }, () => resolve(made));
  });
  await new Promise<void>((resolve) => {
    session.bind_transceiver({ system_id: 'bench', password: 'x' }, () => resolve());
  });
  await measured((from, to) =>
    windowed(from, to, (n, done) => {
      const fields = {
        source_addr: 'Postcard',
        source_addr_ton: 5,
        destination_addr: recipient(n),
        dest_addr_ton: 1,
        dest_addr_npi: 1,
        registered_delivery: 1,
        validity_period: '261126120000000+',
        short_message: TEXT,
      };
      session.submit_sm(fields, (pdu) => {
        if (pdu.command_status !== 0) throw new Error(`status ${pdu.command_status}`);
        done();
      });
    }),
  );
  session.destroy();
}

const OPTIONS: TextOptions = {
  serviceType: '',
  plus: false,
  addressing: {},
  encoding: { default: 'gsm', packed: false },
  concatenation: 'udh',
  registeredDelivery: 'last',
  validity: 'absolute',
};

async function ourCodec(): Promise<void> {
  await measured(async (from, to) => {
    for (let n = from; n < to; n++) {
      const encoded = encodeSms(submission(n), OPTIONS, 0);
      if (!encoded.ok) throw new Error(encoded.words);
      const pdu: Pdu = { command: SUBMIT, status: 0, sequence: n + 1, ...encoded.messages[0]! };
      if (!decode(encode(pdu)).ok) throw new Error('not read');
    }
  });
}

async function theirCodec(): Promise<void> {
  await measured(async (from, to) => {
    for (let n = from; n < to; n++) {
      const pdu = new smpp.PDU('submit_sm', {
        sequence_number: n + 1,
        source_addr: 'Postcard',
        source_addr_ton: 5,
        destination_addr: recipient(n),
        validity_period: '261126120000000+',
        registered_delivery: 1,
        short_message: TEXT,
      });
      if (new smpp.PDU(pdu.toBuffer()).command !== 'submit_sm') throw new Error('not read');
    }
  });
}

interface Figure {
  cpuUs: number;
  perSecond: number;
}

async function compare(): Promise<void> {
  const file = fileURLToPath(import.meta.url);
  const sink = fork(file, ['--role', 'peer']);
  const port = await new Promise<number>((resolve) => sink.once('message', (message) => resolve(message as number)));
  const roles = ['ours', 'theirs', 'our-codec', 'their-codec'] as const;
  const figures = new Map<string, Figure[]>(roles.map((role) => [role, []]));
  for (let turn = 0; turn < TURNS; turn++) {
    for (const role of roles) {
      const options = ['--messages', String(MESSAGES), '--window', String(WINDOW), '--port', String(port)];
      const { stdout } = await promisify(execFile)(process.execPath, [file, '--role', role, ...options]);
      figures.get(role)!.push(JSON.parse(stdout) as Figure);
    }
  }
  sink.disconnect();
  const median = (role: string, of: (figure: Figure) => number): number =>
    figures
      .get(role)!
      .map(of)
      .sort((a, b) => a - b)[Math.floor(TURNS / 2)]!;
  console.log(`${MESSAGES} messages of one segment, window ${WINDOW}, one bind; medians of ${TURNS} turns`);
  console.log('                        CPU us a message   messages a second');
  for (const [role, name] of [
    ['ours', 'Postcard, carrier     '],
    ['theirs', 'npm smpp, session     '],
    ['our-codec', 'Postcard, codec       '],
    ['their-codec', 'npm smpp, codec       '],
  ] as const) {
    const cpu = median(role, (one) => one.cpuUs).toFixed(1);
    const rate = median(role, (one) => one.perSecond).toFixed(0);
    console.log(`${name}${cpu.padStart(18)}${rate.padStart(20)}`);
  }
  const ratio = median('theirs', (one) => one.cpuUs) / median('ours', (one) => one.cpuUs);
  console.log(`The package takes ${ratio.toFixed(2)} times the CPU of the carrier.`);
}

const ROLES: Record<string, () => void | Promise<void>> = {
  peer,
  ours,
  theirs,
  'our-codec': ourCodec,
  'their-codec': theirCodec,
};
await (values.role === undefined ? compare() : ROLES[values.role]!());
