/**
 * The sandbox's SMSC with Kannel as ESME (Debian package kannel): a third reading of SMPP beside ours and the npm package's. Skipped
 * where it is not installed. Real processes and real time; nothing here waits for a fixed time.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { realEnv } from '../../env.ts';
import { startSandbox } from './sandbox.ts';

const BEARERBOX = '/usr/sbin/bearerbox';
const SMSBOX = '/usr/sbin/smsbox';

/** Below what systems give to outgoing connections, and free on all addresses, which Kannel listens on. */
async function freePort(from: number): Promise<number> {
  for (;;) {
    const port = from + Math.floor(Math.random() * 600);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

async function until<T>(what: () => Promise<T | false | undefined>): Promise<T> {
  for (;;) {
    const found = await what().catch(() => false as const);
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

it.skipIf(!existsSync(BEARERBOX) || !existsSync(SMSBOX))(
  'Kannel sends short, long and Cyrillic texts through the SMSC, takes its receipts, and heeds a throttle',
  { timeout: 300_000 },
  async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kannel-'));
    const [admin, boxes, http] = [await freePort(30_000), await freePort(30_600), await freePort(31_200)];
    const sandbox = await startSandbox({
      host: '127.0.0.1',
      port: 0,
      smppPort: 0,
      file: join(dir, 'sandbox.db'),
      reportUrl: 'http://127.0.0.1:1/',
      env: realEnv({ level: 'silent' }),
    });
    const log = join(dir, 'bearerbox.log');
    writeFileSync(
      join(dir, 'kannel.conf'),
      `group = core\nadmin-port = ${admin}\nsmsbox-port = ${boxes}\nadmin-password = x\nlog-file = "${log}"\nlog-level = 0\n` +
        'box-allow-ip = "127.0.0.1"\ndlr-storage = internal\n\n' +
        `group = smsc\nsmsc = smpp\nsmsc-id = sandbox\nhost = 127.0.0.1\nport = ${sandbox.smppPort}\nsmsc-username = kannel\n` +
        'smsc-password = x\nsystem-type = ""\ntransceiver-mode = true\ninterface-version = 34\n\n' +
        `group = smsbox\nbearerbox-host = 127.0.0.1\nsendsms-port = ${http}\n\n` +
        'group = sendsms-user\nusername = u\npassword = p\nconcatenation = true\nmax-messages = 10\n\n' +
        'group = sms-service\nkeyword = default\ntext = "no"\n',
    );
    const children: ChildProcess[] = [];
    const start = (program: string): ChildProcess => {
      const child = spawn(program, ['-v', '4', join(dir, 'kannel.conf')], { cwd: dir, stdio: 'ignore' });
      children.push(child);
      return child;
    };
    const send = async (fields: Record<string, string>): Promise<boolean> => {
      const query = new URLSearchParams({ username: 'u', password: 'p', from: '12345', 'dlr-mask': '31', ...fields });
      const answer = await fetch(`http://127.0.0.1:${http}/cgi-bin/sendsms?${query}`);
      return answer.status === 202;
    };
    const counters = async (): Promise<Record<string, number>> =>
      ((await (await fetch(`${sandbox.url}/sandbox`)).json()) as { counters: Record<string, number> }).counters;
    try {
      start(BEARERBOX);
      await until(async () => readFileSync(log, 'utf8').includes('SMPP[sandbox]: Got PDU') || undefined);
      let smsbox = start(SMSBOX);
      const long = 'a long text '.repeat(30).trim();
      await until(() => {
        // It ends where the bearerbox does not listen yet.
        if (smsbox.exitCode !== null) smsbox = start(SMSBOX);
        return send({ to: '447700900001', text: 'Hello from Kannel' });
      });
      await until(() => send({ to: '447700900001', text: long }));
      await until(() => send({ to: '447700900001', text: 'Привет', coding: '2', charset: 'UTF-8' }));
      await until(() => send({ to: '447700909906', text: 'busy' }));
      await until(async () => (await counters()).smsReported === 3);
      expect(await counters()).toMatchObject({ smsTaken: 5, smsRefused: 0, smsDelivered: 3, smsReportsInVain: 0 });
      await until(async () => ((await counters()).smsThrottled ?? 0) > 0);
      const answer = await fetch(`${sandbox.url}/sandbox/handsets/447700900001/messages`);
      const { messages } = (await answer.json()) as { messages: { text: string }[] };
      expect(messages.map((one) => one.text).sort()).toEqual(['Hello from Kannel', long, 'Привет'].sort());
      // It matched each receipt to its submission.
      expect(readFileSync(log, 'utf8').match(/created DLR message/g)?.length).toBe(3);
    } finally {
      for (const child of children) {
        if (child.exitCode !== null || child.signalCode !== null) continue;
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGKILL');
        await ended;
      }
      await sandbox.close();
      rmSync(dir, { recursive: true, force: true });
    }
  },
);
