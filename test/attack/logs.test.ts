/** The watch over all logs of a test run (`test/log-watch.ts`): it sees what it should, in this process and in others. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { maskNumber, testEnv, watchTestLog } from '../../src/env.ts';
import { shows } from '../planted.ts';

describe('the watch over logs', () => {
  it.each([
    ['a key', '{"level":"info","msg":"x","reason":"door-key-0123456789abcdef"}'],
    ['an operator', 'warn operator-key-0123456789 is wrong'],
    ['a key that was made', '{"level":"info","key":"5f1d"}'],
    ['a webhook secret', '{"msg":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}'],
    ['a password', '{"words":"correct horse battery"}'],
    ['what is kept of one', 'scrypt$1024$8$1$AAAA$BBBB'],
    ['what is kept of another', '$argon2id$v=19$m=64,t=1,p=1$AAAA$BBBB'],
    ['a header', '{"h":"Basic YW5uYTpzZWNyZXQtd29yZHM="}'],
    ['a number', '{"to":"41790000001"}'],
    ['a number with a plus', 'to +491700004711 failed'],
  ])('finds %s', (_, line) => {
    expect(shows(line)).not.toBeNull();
  });

  it.each([
    ['a masked number', `{"to":"${maskNumber('41790000001')}"}`],
    ['a hidden field', '{"key":"[hidden]"}'],
    ['an instant', '{"until":1767225600000,"at":"2026-01-01T00:00:00.000Z"}'],
    ['an id', '{"id":"3f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"}'],
    ['words about keys', 'the key of POSTCARD_API_KEY is not there; App key missing'],
  ])('lets %s pass', (_, line) => {
    expect(shows(line)).toBeNull();
  });

  it('sees every line of a testEnv, of children of its log too', () => {
    const seen: string[] = [];
    watchTestLog(({ message }) => seen.push(message));
    const { log } = testEnv();
    log.info({}, 'one');
    log.child({ part: 'x' }).warn({}, 'two');
    expect(seen).toEqual(['one', 'two']);
  });

  it('leaves what a process says to whoever reads it, a turn later too', async () => {
    const child = spawn(process.execPath, ['-e', 'console.error("said"); console.log("out")']);
    await new Promise((resolve) => setImmediate(resolve));
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    await once(child, 'close');
    expect(said).toBe('said\n');
  });
});
