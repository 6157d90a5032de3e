/** That a store's URL means to us what it means to psql and pg_dump. */
import { describe, expect, it } from 'vitest';
import { hostsOf, shownUrl, waysTo, wrongIn } from './address.ts';

describe('the servers of a URL', () => {
  const cases: [string, string[]][] = [
    ['postgres://u:p@a:1,b:2/db?x=1', ['postgres://u:p@a:1/db?x=1', 'postgres://u:p@b:2/db?x=1']],
    ['postgresql://a/db', ['postgresql://a/db']],
    ['postgres://u:p@ss@a,b/db', ['postgres://u:p@ss@a/db', 'postgres://u:p@ss@b/db']],
    ['postgres://u@[::1]:1,[fe80::2]:2/db', ['postgres://u@[::1]:1/db', 'postgres://u@[fe80::2]:2/db']],
    ['postgres://u@a,b/db?port=1,2', ['postgres://u@a/db?port=1', 'postgres://u@b/db?port=2']],
    ['postgres://u@/db?host=/run/pg&port=5433', ['postgres://u@/db?host=/run/pg&port=5433']],
    [
      'postgres:///db?host=a,::1&port=1,2&x=1',
      ['postgres:///db?host=a&port=1&x=1', 'postgres:///db?host=::1&port=2&x=1'],
    ],
    ['postgres:///db?host=a,b&port=7', ['postgres:///db?host=a&port=7', 'postgres:///db?host=b&port=7']],
    ['postgres://u@x:5433/db?host=a,b', ['postgres://u@/db?host=a&port=5433', 'postgres://u@/db?host=b&port=5433']],
    [
      'postgres://x:1,[::2]:2,z/db?host=a,b,c&port=7',
      ['a', 'b', 'c'].map((host) => `postgres:///db?host=${host}&port=7`),
    ],
    [
      'postgres://x:1,[::2]:2,[::3]/db?host=a,b,c',
      ['host=a&port=1', 'host=b&port=2', 'host=c'].map((to) => `postgres:///db?${to}`),
    ],
    ['postgres:///db?host=a,b&port=,7', ['postgres:///db?host=a', 'postgres:///db?host=b&port=7']],
    ['postgres://%2Frun%2Fpg/db', ['postgres://%2Frun%2Fpg/db']],
    ['no url', ['no url']],
  ];
  for (const [url, hosts] of cases) it(`of ${url} are ${hosts.length}`, () => expect(hostsOf(url)).toEqual(hosts));

  it('are shown without login and parameters', () => {
    expect(shownUrl('postgres://u:p@a:1/db?password=p')).toBe('postgres://a:1/db');
    for (const secret of ['se@cret', 'se/cret', 'se#cret', 'se:cret']) {
      expect(shownUrl(`postgres://u:${secret}@a:1/db?x=1`)).toBe('postgres://a:1/db');
      expect(shownUrl(`postgres://u@a:1/db?password=${secret}`)).toBe('postgres://a:1/db');
    }
    expect(shownUrl('postgres://u:se?cret@a:1/db')).toBe('postgres://...');
    expect(shownUrl('postgres://u:p@/db?host=/run/pg&password=p')).toBe('postgres:///run/pg/db');
  });
});

describe('sslmode', () => {
  const url = 'postgres://a/db?sslmode=';
  const whoever = `${url}require&uselibpqcompat=true`;
  const cases: [string, string[]][] = [
    ['disable', [`${url}disable`]],
    ['allow', [`${url}disable`, whoever]],
    ['prefer', [whoever, `${url}disable`]],
    ['require', [whoever]],
    ['require&sslrootcert=r.pem', [`${url}require&sslrootcert=r.pem&uselibpqcompat=true`]],
    ['verify-ca&sslrootcert=r.pem', [`${url}verify-ca&sslrootcert=r.pem&uselibpqcompat=true`]],
    ['verify-ca', [`${url}verify-full&uselibpqcompat=true`]],
    ['verify-full', [`${url}verify-full`]],
    ['verify-full&sslrootcert=system', [`${url}verify-full`]],
    ['require&sslrootcert=system&x=1', [`${url}verify-full&x=1`]],
    ['no-verify', [`${url}no-verify`]],
    ['require&uselibpqcompat=true', [whoever]],
  ];
  for (const [mode, ways] of cases)
    it(`${mode} is tried as libpq tries it`, () => expect(waysTo(url + mode)).toEqual(ways));

  it('is not asked for where the URL does not', () => {
    expect(waysTo('postgres://a/db')).toEqual(['postgres://a/db']);
    // Whom the machine trusts, and so TLS.
    expect(waysTo('postgres://a/db?sslrootcert=system')).toEqual([`${url}verify-full`]);
    expect(waysTo('postgres://a/db?sslrootcert=system&x=1')).toEqual(['postgres://a/db?x=1&sslmode=verify-full']);
  });

  it('that nobody knows is a mistake, not none', () => {
    expect(wrongIn(`${url}requires`)).toMatch(/sslmode=requires is none of disable/);
    expect(wrongIn(`${url}require`)).toBeNull();
    const [unknown] = waysTo(`${url}requires&sslrootcert=system`);
    expect(wrongIn(unknown as string)).toMatch(/sslmode=requires/);
    expect(wrongIn('postgres://a/db?dbname=other')).toMatch(/^dbname=/);
  });
});
