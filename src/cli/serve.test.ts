import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../config.ts';
import { testEnv } from '../env.ts';
import type { Running } from '../main.ts';
import { demoConfig } from './demo.ts';
import { banner, createStopper, keyLine, sendCurl, serve } from './serve.ts';
import { Failure, hasColor, type Io } from './terminal.ts';

const KEY = '0123456789abcdef';
const running = (changes: Partial<Running> = {}): Running => ({
  url: 'http://127.0.0.1:8080',
  sandboxUrl: 'http://127.0.0.1:8081',
  carrierUrl: 'http://127.0.0.1:8082',
  firstKey: null,
  reload: () => Promise.resolve(),
  stop: () => Promise.resolve(),
  ...changes,
});

function configOf(env: Record<string, string>) {
  const loaded = loadConfig({
    env,
    cwd: '/srv',
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  return loaded.config;
}

function testIo(changes: Partial<Io> = {}): Io & { stdout: string } {
  return {
    stdout: '',
    out(text) {
      this.stdout += text;
    },
    err: () => {},
    env: {},
    cwd: '/',
    tty: false,
    readFile: () => Buffer.alloc(0),
    stop: AbortSignal.abort(),
    ...changes,
  };
}

describe('the start of the server', () => {
  it('shows a terminal where everything is, the first key, and a curl to paste', () => {
    const text = banner(running({ firstKey: KEY }), configOf({}), false);
    for (const part of [
      'http://127.0.0.1:8080\n',
      'http://127.0.0.1:8081/sandbox/handsets/{number}/messages',
      'http://127.0.0.1:8082/mm7/{carrier}',
      'the sandbox: no carrier is configured',
      '/srv/data',
      `curl http://127.0.0.1:8080/mms/2/messages -H 'Authorization: App ${KEY}'`,
    ]) {
      expect(text).toContain(part);
    }
    expect(text).not.toContain('\u001b');
    expect(banner(running(), configOf({}), true)).toContain('\u001b[38;5;208mPostcard\u001b[0m');
  });

  it('shows addresses that can be called where it listens on all of them', () => {
    const all = { url: 'http://0.0.0.0:8080', carrierUrl: 'http://[::]:8082', sandboxUrl: 'http://0.0.0.0:8081' };
    const text = banner(running(all), configOf({}), false);
    expect(text).toContain('http://127.0.0.1:8080  and every other address of this machine\n');
    expect(text).toContain('http://[::1]:8082/mm7/{carrier}');
    expect(text).not.toMatch(/0\.0\.0\.0|\[::\]/);
  });

  it('shows no key but the one that was made by this start', () => {
    const text = banner(running(), configOf({ POSTCARD_API_KEY: 'configured-key' }), false);
    expect(text).not.toContain('configured-key');
    expect(text).toContain('"Authorization: App $POSTCARD_API_KEY"');
  });

  it('gives a log collector one plain line with the first key, and nothing at any other start', () => {
    expect(keyLine(running())).toBe('');
    expect(keyLine(running({ firstKey: KEY }))).toBe(
      `postcard: the API key of the first account, shown only this once: ${KEY}\n`,
    );
  });

  it('never logs the key, and ends with 0 when it is told to stop', async () => {
    const env = testEnv();
    const io = testIo();
    let stopped = 0;
    const made = running({
      firstKey: KEY,
      stop: () => {
        stopped += 1;
        return Promise.resolve();
      },
    });
    expect(await serve(io, env, configOf({}), () => Promise.resolve(made))).toBe(0);
    expect(stopped).toBe(1);
    expect(io.stdout.split(KEY)).toHaveLength(2);
    expect(JSON.stringify(env.lines)).not.toContain(KEY);
  });

  it('gives up on a stop that does not end within 35 s', async () => {
    const env = testEnv();
    const start = () => Promise.resolve(running({ stop: () => new Promise<void>(() => {}) }));
    const ended = serve(testIo(), env, configOf({}), start).catch((error: unknown) => error);
    await env.clock.settle();
    await env.clock.advance(35_000);
    expect(await ended).toBeInstanceOf(Failure);
  });

  it.each([
    [false, 1],
    [true, 0],
  ])('on SIGHUP takes a changed configuration over, but not on a terminal (%j)', async (tty, reloads) => {
    let reloaded = 0;
    let hangup = (): void => undefined;
    const stop = new AbortController();
    const io = testIo({
      tty,
      stop: stop.signal,
      onHangup: (act) => {
        hangup = act;
      },
    });
    const reload = async (): Promise<void> => {
      reloaded += 1;
    };
    const env = testEnv();
    const ended = serve(io, env, configOf({}), () => Promise.resolve(running({ reload })));
    await env.clock.settle();
    hangup();
    expect(reloaded).toBe(reloads);
    stop.abort();
    expect(await ended).toBe(0);
  });

  it('passes the lines of a failed start on', async () => {
    const start = () => Promise.reject(new Failure('one', 'two'));
    await expect(serve(testIo(), testEnv(), configOf({}), start)).rejects.toMatchObject({ lines: ['one', 'two'] });
  });

  it('stops at the first signal and ends at once at the second, but not at an echo of the first', async () => {
    const { clock } = testEnv();
    let forced = 0;
    const stopper = createStopper(clock, () => {
      forced += 1;
    });
    expect(stopper.stop.aborted).toBe(false);
    stopper.signal();
    expect(stopper.stop.aborted).toBe(true);
    await clock.advance(500);
    stopper.signal();
    expect(forced).toBe(0);
    await clock.advance(600);
    stopper.signal();
    expect(forced).toBe(1);
  });

  it('prints a curl that a shell reads as one request', () => {
    const words = (key: string): string[] =>
      execFileSync('sh', ['-c', `curl() { printf '%s\\n' "$@"; }\n${sendCurl('http://h:1', key)}`], {
        env: { POSTCARD_API_KEY: 'from the environment' },
      })
        .toString()
        .trimEnd()
        .split('\n');
    const [url, , auth, , type, , body] = words("it's$odd");
    expect([url, auth, type]).toEqual([
      'http://h:1/mms/2/messages',
      "Authorization: App it's$odd",
      'Content-Type: application/json',
    ]);
    expect(JSON.parse(body ?? '')).toHaveProperty('messages[0].destinations[0].to');
    expect(words('$POSTCARD_API_KEY')[2]).toBe('Authorization: App from the environment');
  });

  it('uses colours on a terminal only, and not where NO_COLOR says no', () => {
    expect(hasColor({ tty: true, env: {} })).toBe(true);
    expect(hasColor({ tty: false, env: {} })).toBe(false);
    expect(hasColor({ tty: true, env: { NO_COLOR: '1' } })).toBe(false);
    expect(hasColor({ tty: true, env: { TERM: 'dumb' } })).toBe(false);
  });
});

describe('the settings of a demo', () => {
  it('send nothing to a real carrier, reach the receiver on this machine, and make a key where none is given', () => {
    const carriers = [{ name: 'real', type: 'mm7', url: 'https://mmsc.example.com/' }];
    const config = { ...configOf({ POSTCARD_HOST: '0.0.0.0', POSTCARD_SANDBOX: 'false' }), carriers } as never;
    const made = demoConfig(config, testEnv());
    expect(made).toMatchObject({
      sandbox: true,
      carriers: [],
      dataDir: '/srv/data/demo',
      store: 'sqlite:/srv/data/demo/postcard.db',
      outboundAllow: ['127.0.0.0/8'],
    });
    expect(made.apiKey).toMatch(/^[0-9a-f]{32}$/);
    expect(demoConfig(configOf({ POSTCARD_API_KEY: 'mine' }), testEnv()).apiKey).toBe('mine');
  });
});
