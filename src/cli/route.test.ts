import { describe, expect, it } from 'vitest';
import { run } from './postcard.ts';
import type { Io } from './terminal.ts';

const YAML = `
carriers:
  - {name: north, type: mm7, url: "https://mmsc.example/mm7"}
  - {name: south, type: mm7, url: "https://mmsc.test/mm7"}
  - {name: texts, type: smpp, host: smsc.example, systemId: me, password: secret}
routes:
  - {name: germany, to: 49, carriers: [south, north, texts]}
  - {account: 7, carriers: [north]}
  - {to: 82, carriers: []}
networks: {4917: 26201}
resellerCodeRequired: [82]
`;

async function typed(args: string[], yaml = YAML): Promise<{ code: number; out: string; err: string }> {
  let out = '';
  let err = '';
  const io: Io = {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    env: {},
    cwd: '/srv',
    tty: false,
    readFile: (path) => {
      if (path === '/srv/postcard.yaml') return Buffer.from(yaml);
      throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    },
    stop: new AbortController().signal,
  };
  const code = await run(['route', ...args], io);
  return { code, out, err };
}

describe('postcard route', () => {
  it('explains the way of a number without a server', async () => {
    const { code, out } = await typed(['+491710000001']);
    expect(code).toBe(0);
    expect(out).toContain('491710000001, network 26201\n');
    expect(out).toMatch(/MMS +south, north +1 germany +the rule says so/);
    expect(out).toMatch(/SMS +texts +1 germany +the rule says so/);
  });

  it('asks who sends where rules do', async () => {
    expect((await typed(['447700900001'])).code).toBe(1);
    const { code, out } = await typed(['447700900001', '--account', '7']);
    expect(code).toBe(0);
    expect(out).toMatch(/MMS +north +2/);
  });

  it('says why there is no way', async () => {
    const none = await typed(['821012345678']);
    expect(none.code).toBe(1);
    expect(none.out).toContain('needs a reseller code');
    expect(none.out).toMatch(/MMS +none +3 +the rule gives it no carrier/);
    const wrong = await typed(['0171']);
    expect(wrong.code).toBe(1);
    expect(wrong.out).toBe('0171 is not an address that a message can go to (status 52).\n');
  });

  it('says that the sandbox takes all while there is no carrier', async () => {
    const { code, out } = await typed(['491710000001'], '');
    expect(code).toBe(0);
    expect(out).toMatch(/MMS +sandbox +no carrier is configured: the sandbox takes all/);
  });

  it('is data for programs', async () => {
    const { out } = await typed(['491710000001', '-o', 'json']);
    expect(JSON.parse(out)).toEqual([
      {
        destination: '491710000001',
        status: null,
        shortCode: false,
        network: '26201',
        needsResellerCode: false,
        channel: 'MMS',
        carriers: ['south', 'north'],
        rule: 1,
        name: 'germany',
        why: 'the rule says so',
      },
      expect.objectContaining({ channel: 'SMS', carriers: ['texts'], rule: 1 }),
    ]);
  });

  it('tells what is wrong with the routes', async () => {
    const { code, err } = await typed(['491710000001'], 'routes: [{carriers: [nowhere]}]');
    expect(code).toBe(1);
    expect(err).toContain('routes[0].carriers[0] is "nowhere"');
  });
});
