import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createDigest } from './digest.ts';

const fixed = (n: number): Uint8Array => new Uint8Array(n).fill(7);
const CNONCE = '07'.repeat(16);

/** The fields of an Authorization. */
function fields(value: string): Record<string, string> {
  return Object.fromEntries(
    [...value.matchAll(/(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))/g)].map(([, name, quoted, plain]) => [
      name,
      quoted ?? plain,
    ]),
  );
}

const md5 = (text: string): string => createHash('md5').update(text).digest('hex');
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

describe('Digest', () => {
  it('has nothing to show before a challenge', () => {
    expect(createDigest('u', 'p', fixed).authorize('POST', '/')).toBeNull();
  });

  it('answers the example of RFC 7616, 3.9.1, in both algorithms', () => {
    // That example has the method GET and a cnonce of its own, so its hashes are computed here by its formula.
    const realm = 'http-auth@example.org';
    const nonce = '7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v';
    for (const [algorithm, hash] of [
      ['SHA-256', sha256],
      ['MD5', md5],
    ] as const) {
      const digest = createDigest('Mufasa', 'Circle of Life', fixed);
      expect(
        digest.challenged(
          [
            `Digest realm="${realm}", qop="auth, auth-int", algorithm=${algorithm}, nonce="${nonce}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`,
          ],
          null,
        ),
      ).toBe(true);
      const shown = digest.authorize('GET', '/dir/index.html');
      const expected = hash(
        `${hash(`Mufasa:${realm}:Circle of Life`)}:${nonce}:00000001:${CNONCE}:auth:${hash('GET:/dir/index.html')}`,
      );
      expect(fields(shown!.value)).toEqual({
        username: 'Mufasa',
        realm,
        nonce,
        uri: '/dir/index.html',
        algorithm,
        response: expected,
        opaque: 'FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS',
        qop: 'auth',
        nc: '00000001',
        cnonce: CNONCE,
      });
    }
  });

  it('agrees with the published response of RFC 2617, 3.5', () => {
    const digest = createDigest('Mufasa', 'Circle Of Life', (n) => Buffer.from('0a4f113b').subarray(0, n));
    digest.challenged(['Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'], null);
    // Without qop, as RFC 2069 has it.
    expect(fields(digest.authorize('GET', '/dir/index.html')!.value).response).toBe('670fd8c2df070c60b045671b8b24ff02');
  });

  it('uses a nonce again and counts, and takes the next one where it is told', () => {
    const digest = createDigest('u', 'p', fixed);
    digest.challenged(['Digest realm="r", nonce="n1", qop="auth"'], null);
    expect(fields(digest.authorize('POST', '/')!.value).nc).toBe('00000001');
    expect(fields(digest.authorize('POST', '/')!.value).nc).toBe('00000002');
    digest.informed('nextnonce="n2", qop=auth');
    expect(fields(digest.authorize('POST', '/')!.value)).toMatchObject({ nonce: 'n2', nc: '00000001' });
  });

  it('chooses the strongest of several challenges, of one header or many', () => {
    const digest = createDigest('u', 'p', fixed);
    const offers = [
      'Basic realm="x", Digest realm="r", nonce="a", algorithm=MD5, qop="auth"',
      'Digest realm="r", nonce="b", algorithm=SHA-256, qop="auth"',
    ];
    expect(digest.challenged(offers, null)).toBe(true);
    expect(fields(digest.authorize('POST', '/')!.value)).toMatchObject({ nonce: 'b', algorithm: 'SHA-256' });
  });

  it.each([
    ['MD5', md5],
    ['SHA-256', sha256],
  ] as const)('puts the body into its answer where the peer offers auth-int alone, in %s', (algorithm, hash) => {
    const digest = createDigest('u', 'p', fixed);
    expect(digest.challenged([`Digest realm="r", nonce="n", qop="auth-int", algorithm=${algorithm}`], null)).toBe(true);
    const shown = fields(digest.authorize('POST', '/x', [Buffer.from('one'), Buffer.from('two')])!.value);
    const request = hash(`POST:/x:${hash('onetwo')}`);
    expect(shown).toMatchObject({
      qop: 'auth-int',
      response: hash(`${hash('u:r:p')}:n:00000001:${CNONCE}:auth-int:${request}`),
    });
  });

  it('makes the session key of -sess from the nonce and its own', () => {
    for (const [algorithm, hash] of [
      ['MD5-sess', md5],
      ['SHA-256-sess', sha256],
    ] as const) {
      const digest = createDigest('u', 'p', fixed);
      digest.challenged([`Digest realm="r", nonce="n", qop="auth", algorithm=${algorithm}`], null);
      const secret = hash(`${hash('u:r:p')}:n:${CNONCE}`);
      expect(fields(digest.authorize('POST', '/')!.value)).toMatchObject({
        algorithm,
        cnonce: CNONCE,
        response: hash(`${secret}:n:00000001:${CNONCE}:auth:${hash('POST:/')}`),
      });
    }
  });

  it('does not answer the same challenge twice for one request, but does for two', () => {
    const digest = createDigest('u', 'p', fixed);
    const offer = ['Digest realm="r", nonce="n", qop="auth"'];
    expect(digest.challenged(offer, null)).toBe(true);
    const shown = digest.authorize('POST', '/')!.nonce;
    expect(digest.challenged(offer, shown)).toBe(false);
    expect(digest.challenged(offer, null)).toBe(true);
    expect(fields(digest.authorize('POST', '/')!.value).nc).toBe('00000002');
  });

  it.each([
    'Basic realm="x"',
    'Digest realm="r"',
    'Digest realm="r", nonce="n", qop="auth-conf"',
    'Digest realm="r", nonce="n", qop=""',
    'Digest realm="r", nonce="n", algorithm=SHA-512-256',
    'Negotiate',
    '',
    '"',
    'Digest',
  ])('cannot answer %j', (offer) => {
    expect(createDigest('u', 'p', fixed).challenged([offer], null)).toBe(false);
  });

  it('lets no realm or name break out of its quotes', () => {
    const digest = createDigest('a"b\\c', 'p', fixed);
    digest.challenged(['Digest realm="r\\", x=\\"y", nonce="n", qop=auth'], null);
    const { value } = digest.authorize('POST', '/?q="')!;
    expect(value).toContain('username="a\\"b\\\\c"');
    expect(value).toContain('realm="r\\", x=\\"y"');
    expect(value).toContain('uri="/?q=\\""');
  });
});
