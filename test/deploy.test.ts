/**
 * The files for containers and systemd against the code that they start: every setting that they name exists and is taken, every path
 * that they copy or call is there, ports and stops are the server's. What an engine would say is not asked here.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig, SETTINGS } from '../src/config.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
/** Longer than the 35 s that a stop may take (G14). */
const STOP_S = 40;

/** Whether a server takes these settings; the mistakes that it would name. */
function mistakes(env: Record<string, string>): string[] {
  const loaded = loadConfig({
    env,
    cwd: '/',
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  return loaded.ok ? [] : loaded.mistakes;
}

/** As compose does it, with a value for each variable. */
const filled = (text: string): string =>
  text.replaceAll(/\$\{(\w+)(?::[-?][^}]*)?\}/g, '0123456789abcdef0123456789abcdef');

describe('the Dockerfile', () => {
  const file = read('Dockerfile');
  it('copies what is there, and nothing of it is kept out by .dockerignore', () => {
    const ignored = read('.dockerignore').split('\n');
    for (const [, from, what = ''] of file.matchAll(/^COPY (--from=\S+ )?(.+) \S+$/gm)) {
      if (from !== undefined) continue;
      for (const path of what.split(' ')) {
        expect([path, existsSync(join(ROOT, path))]).toEqual([path, true]);
        expect(ignored).not.toContain(path);
      }
    }
  });

  it('runs the server as a user without rights, on the Node that the code needs, with a health check', () => {
    expect([...file.matchAll(/^FROM (\S+)/gm)].map(([, image]) => image)).toEqual(['node:24-slim', 'node:24-slim']);
    expect(file.indexOf('USER node')).toBeGreaterThan(0);
    expect(file.indexOf('USER node')).toBeLessThan(file.indexOf('CMD ["node", "src/cli/postcard.ts", "serve"]'));
    expect(file).toMatch(/^HEALTHCHECK .*\\\n +CMD \["node", "-e", "fetch\(.*\/readyz/m);
    const env = Object.fromEntries(
      [...file.matchAll(/(POSTCARD_\w+)=([^\s.]\S*)/g)].slice(-2).map(([, name, value]) => [name, value]),
    );
    expect(Object.keys(env)).toEqual(['POSTCARD_HOST', 'POSTCARD_DATA_DIR']);
    expect(mistakes(env as Record<string, string>)).toEqual([]);
  });
});

describe('the compose file', () => {
  const text = read('compose.yaml');
  const { services } = parse(filled(text), { merge: true }) as {
    services: Record<
      string,
      { environment: Record<string, string>; ports?: string[]; stop_grace_period?: string; healthcheck?: object }
    >;
  };
  it('has a database and two nodes that start with its settings', () => {
    expect(Object.keys(services)).toEqual(['postgres', 'node1', 'node2']);
    for (const name of ['node1', 'node2']) {
      const { environment, stop_grace_period: stop } = services[name] as (typeof services)[string];
      expect([name, mistakes({ ...environment, POSTCARD_HOST: '0.0.0.0' })]).toEqual([name, []]);
      expect(environment.POSTCARD_STORE).toMatch(/^postgres:/);
      expect(Number.parseInt(stop ?? '0', 10)).toBeGreaterThanOrEqual(STOP_S);
    }
    expect(services.node1?.environment.POSTCARD_NODE).not.toBe(services.node2?.environment.POSTCARD_NODE);
  });

  it('opens nothing beyond this machine, and has no secret in it', () => {
    for (const { ports = [] } of Object.values(services))
      for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
    for (const name of ['POSTGRES_PASSWORD', 'POSTCARD_API_KEY']) expect(text).toContain(`\${${name}:?`);
  });
});

describe('the Kubernetes manifest', () => {
  const documents = parseAllDocuments(read('deploy/kubernetes.yaml')).map(
    (document) => document.toJS() as Record<string, never>,
  );
  const [secret, service, set] = documents as unknown as [
    { kind: string; stringData: Record<string, string> },
    { kind: string; spec: { ports: { port: number }[]; selector: object } },
    {
      kind: string;
      spec: {
        serviceName: string;
        selector: { matchLabels: object };
        template: {
          metadata: { labels: object };
          spec: {
            terminationGracePeriodSeconds: number;
            containers: Container[];
            securityContext: object;
            automountServiceAccountToken: boolean;
            topologySpreadConstraints: { labelSelector: { matchLabels: object } }[];
            volumes: { name: string }[];
          };
        };
      };
    },
  ];
  interface Container {
    env: { name: string; value?: string }[];
    ports: { containerPort: number }[];
    volumeMounts: { name: string }[];
    readinessProbe: { httpGet: { path: string; port: number } };
    livenessProbe: { httpGet: { path: string; port: number } };
    securityContext: object;
  }
  it('is a secret, a service and a set that fit each other and the server', () => {
    expect(documents.map(({ kind }) => kind)).toEqual(['Secret', 'Service', 'StatefulSet']);
    const { spec, metadata } = set.spec.template;
    const [container] = spec.containers as [Container];
    const env = Object.fromEntries(container.env.map(({ name, value }) => [name, value ?? 'postcard-0']));
    expect(mistakes({ ...secret.stringData, ...env, POSTCARD_HOST: '0.0.0.0' })).toEqual([]);
    expect(metadata.labels).toEqual(service.spec.selector);
    expect(set.spec.selector.matchLabels).toEqual(metadata.labels);
    for (const { labelSelector } of spec.topologySpreadConstraints) {
      expect(labelSelector.matchLabels).toEqual(metadata.labels);
    }
    expect(container.ports.map(({ containerPort }) => containerPort)).toEqual(
      service.spec.ports.map(({ port }) => port),
    );
    expect([container.readinessProbe.httpGet, container.livenessProbe.httpGet]).toEqual([
      { path: '/readyz', port: 8080 },
      { path: '/livez', port: 8080 },
    ]);
    expect(container.volumeMounts.map(({ name }) => name)).toEqual(spec.volumes.map(({ name }) => name));
    expect(spec.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(STOP_S);
  });

  it('runs without rights, on a file system that it cannot write', () => {
    const { spec } = set.spec.template;
    expect(spec.securityContext).toMatchObject({ runAsNonRoot: true });
    expect(spec.automountServiceAccountToken).toBe(false);
    expect(spec.containers[0]?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
  });
});

describe('what an operator does inside a container', () => {
  it('is a command that is in the image, with a key that the files pass on', () => {
    const command = 'node bin/postcard.cjs account list';
    expect(read('Dockerfile')).toMatch(/^COPY bin bin$/m);
    for (const path of ['compose.yaml', 'deploy/kubernetes.yaml']) {
      expect([path, read(path).includes(command), read(path).includes('POSTCARD_ADMIN_KEY: ')]).toEqual([
        path,
        true,
        true,
      ]);
    }
  });
});

describe('the systemd unit', () => {
  const unit = read('deploy/postcard.service');
  const of = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1] ?? '';
  const tool = spawnSync('systemd-analyze', ['--version']).status === 0;
  it.skipIf(!tool)('is one that systemd reads without a complaint, where systemd is at hand', () => {
    const dir = mkdtempSync(join(tmpdir(), 'postcard-unit-'));
    try {
      // There is no /opt/postcard here; all else is as it stands.
      const path = join(dir, 'postcard.service');
      writeFileSync(path, unit.replace(/^ExecStart=\S+/m, `ExecStart=${process.execPath}`));
      const verified = spawnSync('systemd-analyze', ['verify', path], { encoding: 'utf8' });
      expect([verified.status, `${verified.stdout}${verified.stderr}`]).toEqual([0, '']);
      writeFileSync(path, unit.replace('ProtectSystem=strict', 'ProtectSystm=strict'));
      expect(spawnSync('systemd-analyze', ['verify', path], { encoding: 'utf8' }).stderr).toContain('ProtectSystm');
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it('starts what is there, with settings that exist, and gives a stop its time', () => {
    const [path = '', ...args] = of('ExecStart').replace('/opt/postcard/', '').split(' ');
    expect([path, args]).toEqual(['bin/postcard.cjs', ['serve']]);
    expect(statSync(join(ROOT, path)).mode & 0o111).toBeGreaterThan(0);
    const names = new Set<string>(SETTINGS.flatMap(({ env }) => (env === null ? [] : [env])));
    for (const [name] of unit.matchAll(/POSTCARD_\w+(?==)/g))
      expect([name, names.has(name) || name === 'POSTCARD_CONFIG']).toEqual([name, true]);
    expect(Number(of('TimeoutStopSec'))).toBeGreaterThanOrEqual(STOP_S);
    expect([of('DynamicUser'), of('NoNewPrivileges'), of('ProtectSystem'), of('UMask')]).toEqual([
      'yes',
      'yes',
      'strict',
      '0077',
    ]);
  });
});
