/**
 * What travels, seen by others: a corpus of content goes the way of a message (door, preparation, MM7 encoder), and the bytes are
 * read by MIME parsers of other families: postal-mime, and Python's email package where there is a python3. All must find the
 * same parts, names, types and bytes, and a presentation whose every `src` is the Content-ID of a part.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import PostalMime from 'postal-mime';
import { beforeAll, describe, expect, it } from 'vitest';
import { createSendValidator, DEFAULT_LIMITS } from '../src/api/schema.ts';
import { createSubmitEncoder } from '../src/carriers/mm7/submit.ts';
import { prepareSpec, submissionOf } from '../src/dispatch/prepare.ts';
import { subjectFor, wordsFor } from '../src/domain/content.ts';
import type { Segment } from '../src/domain/message.ts';
import { PROFILES } from '../src/domain/profile.ts';
import type { SpecRow } from '../src/domain/rows.ts';
import type { Submission } from '../src/domain/submission.ts';
import { childOf, readXml, textOf, type XmlElement } from '../src/xml.ts';
import { documented } from './api/send.table.ts';

/** Every byte, and what parsers trip over: line breaks of all kinds, dots, dashes, what looks like our boundary. */
const HOSTILE = Buffer.concat([
  Buffer.from(Array.from({ length: 256 }, (_, i) => i)),
  Buffer.from(
    '\r\n.\r\n--=_postcard\r\n--=_postcard--\r\n--pc-0--\r\n\r\nContent-Type: text/html\r\n\r\n<b>\n\n\r\r=3D=\r\n',
  ),
]);
const text = (words: string, contentId?: string): Segment => ({
  type: 'TEXT',
  text: words,
  ...(contentId === undefined ? {} : { contentId }),
});
const upload = (contentId?: string): Segment => ({
  type: 'UPLOADED_REFERENCE',
  uploadedContentId: 'U',
  ...(contentId === undefined ? {} : { contentId }),
});
const smil = (body: string): Segment => ({
  type: 'SMIL',
  contentType: 'application/smil',
  smil: `<smil><body>${body}</body></smil>`,
});

interface Case {
  title?: string;
  segments: Segment[];
  /** Of uploads and links, in their order. */
  types?: string[];
  names?: string[];
}

const controls = Array.from({ length: 32 }, (_, i) => String.fromCharCode(i))
  .slice(1)
  .join('');

const cases: [string, Case][] = [
  ...documented.map(([name, body]): [string, Case] => {
    const { content } = (body as { messages: { content: { title?: string; messageSegments: Segment[] } }[] })
      .messages[0]!;
    return [
      `the published sample "${name}"`,
      { segments: content.messageSegments, ...(content.title ? { title: content.title } : {}) },
    ];
  }),
  ['nothing but an empty text', { segments: [text('')] }],
  ['a text at its limit, in the longest of characters', { segments: [text('\u{1F469}'.repeat(4096))] }],
  [
    'scripts from right to left, and marks that turn it',
    { title: 'שלום عربى', segments: [text('\u202eabc\u202c שלום ‏عربى‎')] },
  ],
  ['emoji of many signs', { title: '👩‍👩‍👧‍👦🏳️‍🌈', segments: [text('👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 e\u0301')] }],
  [
    'control characters everywhere',
    { title: `a${controls}b`, segments: [text(`a${controls}\u007f\u0085\u2028b`, `c${controls}d`)] },
  ],
  ['line ends of all kinds', { segments: [text('\r\n.\r\n\n\r--=_postcard\r\n--=_postcard--\r\n \t\r\n')] }],
  [
    'names that try to be headers',
    {
      title: 'x\r\nSubject: y\r\n\r\nz',
      segments: [
        upload('a\r\nX-Evil: 1\r\n\r\nbody'),
        upload('"; name="evil'),
        upload('a>\r\nContent-Type: text/html'),
        upload(),
      ],
      types: ['image/png', 'image/png; name="x"; x=y', 'image/png', 'image/png;\r\n X-Evil: 1'],
      names: ['', '', '', 'evil\r\nX-Evil: 1.png'],
    },
  ],
  [
    'types that are none',
    { segments: [upload(), upload(), upload()], types: ['evil"\r\nX-Evil: 1', '', 'multipart/mixed; boundary=x'] },
  ],
  [
    'names that try to be paths',
    { segments: [upload(`${'../'.repeat(2)}etc/passwd`), upload('C:\\con'), upload('.'), upload('/')] },
  ],
  [
    'names that try to be words',
    { segments: [upload('=?utf-8?B?YQ==?='), upload("a'b''c"), upload('a%0d%0ab'), upload('ž 😀.png')] },
  ],
  ['the same name again and again', { segments: ['a', 'A', 'a', 'a ', 'a_2', ''].map((id) => upload(id)) }],
  [
    'names of a thousand characters',
    { segments: [upload(`${'n'.repeat(1000)}.png`), upload(`${'n'.repeat(1000)}.png`)] },
  ],
  [
    'twenty segments of all kinds',
    {
      segments: Array.from({ length: 20 }, (_, i) => (i % 2 ? upload(`picture ${i}`) : text(`text ${i}`))),
      types: [
        'image/jpeg',
        'image/gif',
        'audio/amr',
        'video/mp4',
        'text/vcard',
        'application/pdf',
        'application/vnd.apple.pkpass',
        'image/png',
        'video/3gpp',
        'audio/mpeg',
      ],
    },
  ],
  [
    'a presentation of its own',
    {
      segments: [
        smil('<par dur="5s"><img src="my picture"/><text src="cid:t&amp;1"/></par><ref src="sound.amr"/>'),
        upload('my picture'),
        text('hello', 't&1'),
        upload(),
      ],
      types: ['image/png', 'audio/amr'],
      names: ['', 'sound.amr'],
    },
  ],
  [
    'a presentation that would harm',
    {
      segments: [
        smil(
          '<par onload="x" dur="5s"><img src="p" alt="&quot;&lt;/smil&gt;&#13;&#10;--=_postcard" href="http://evil.example"/></par><a href="http://evil.example"/>',
        ),
        upload('p'),
      ],
    },
  ],
];

const validate = createSendValidator({ limits: DEFAULT_LIMITS, checkCallout: () => null });

async function submissionFor({ title, segments, types = [], names = [] }: Case): Promise<Submission> {
  const message = {
    sender: '441134960000',
    content: { messageSegments: segments, ...(title === undefined ? {} : { title }) },
  };
  const valid = validate({ messages: [{ ...message, destinations: [{ to: '41793026727' }] }] }, 0);
  if (!valid.ok) throw new Error(JSON.stringify(valid.violations));
  let n = 0;
  const media: SpecRow['media'] = segments.flatMap((segment, index) => {
    if (segment.type !== 'UPLOADED_REFERENCE' && segment.type !== 'LINK') return [];
    const contentType = types[n] ?? 'image/jpeg';
    return [{ segment: index, hash: 'h', contentType, name: names[n++] ?? '' }];
  });
  const row: SpecRow = {
    no: 1,
    account: 1,
    sender: message.sender,
    body: JSON.stringify(message),
    acceptedAt: 0,
    media,
  };
  const result = await prepareSpec(row, async () => HOSTILE);
  if (!result.ok) throw new Error(result.words);
  const claim = {
    token: 1,
    leader: 2,
    spec: 1,
    members: [{ no: 2, to: '41793026727', key: null }],
    generation: 0,
    attempt: 1,
  };
  return submissionOf({ ...claim, notBeforeUs: 0, paced: false, validUntil: 1_000_000 }, result.prepared, 'i');
}

/** As a mail, which is what these parsers read. */
function mailOf(submission: Submission, transferEncoding: 'binary' | 'base64'): Buffer {
  const encode = createSubmitEncoder(
    { namespace: 'urn:mm7', version: '6.8.0', vaspId: 'v', transferEncoding },
    () => 'pc-0',
  );
  const { contentType, opening, closing } = encode(submission);
  expect(contentType).toMatch(/^[\x20-\x7e]+$/);
  return Buffer.concat([Buffer.from(`MIME-Version: 1.0\r\nContent-Type: ${contentType}\r\n\r\n`), opening, closing]);
}

interface Seen {
  type: string;
  id: string | null;
  name: string | null;
  sha256: string;
}

const sha256 = (bytes: Uint8Array | ArrayBuffer): string =>
  createHash('sha256').update(new Uint8Array(bytes)).digest('hex');

/** Leaves in their order, by Python's email package: JSON lines, one list a mail. */
const PYTHON = `
import email, hashlib, json, sys
out = []
for path in sys.stdin.read().split():
    with open(path, 'rb') as f:
        message = email.message_from_bytes(f.read())
    leaves, defects = [], []
    for part in message.walk():
        defects += [type(d).__name__ for d in part.defects]
        if part.is_multipart(): continue
        body = part.get_payload(decode=True)
        leaves.append({'type': part.get_content_type(), 'id': part.get('Content-ID'), 'name': part.get_filename(),
                       'sha256': hashlib.sha256(body).hexdigest(), 'headers': sorted(k.lower() for k in part.keys()),
                       'text': body.decode('utf-8', 'replace') if part.get_content_type() in ('text/xml', 'application/smil') else None})
    out.append({'leaves': leaves, 'defects': defects})
print(json.dumps(out))
`;

interface Python {
  leaves: (Seen & { headers: string[]; text: string | null })[];
  defects: string[];
}

function elementsOf(root: XmlElement): XmlElement[] {
  return [root, ...root.children.flatMap(elementsOf)];
}

function rootOf(xml: string): XmlElement {
  const read = readXml(xml);
  if (!read.ok) throw new Error(`${read.fault} in ${xml.slice(0, 300)}`);
  return read.root;
}

const submissions: Submission[] = [];
beforeAll(async () => {
  for (const [, one] of cases) submissions.push(await submissionFor(one));
});

describe('by postal-mime', () => {
  it.each(cases.map(([name], i) => [name, i] as const))('%s arrives whole', async (_, i) => {
    const submission = submissions[i] as Submission;
    const mail = await PostalMime.parse(mailOf(submission, 'base64'));
    expect(mail.headers.map(({ key }) => key)).toEqual(['mime-version', 'content-type']);
    const leaves = mail.attachments.map(({ mimeType, contentId, filename, content }) => ({
      type: mimeType,
      id: contentId,
      name: filename,
      sha256: sha256(content as ArrayBuffer),
    }));
    // It takes plain text for the mail's own words; all else is an attachment.
    const others = submission.parts.filter(({ contentType }) => !/^text\/plain\b/i.test(contentType));
    const [root, presentation, ...parts] = leaves;
    expect([root?.type, presentation?.type]).toEqual(['text/xml', 'application/smil']);
    expect(parts.map(({ id, sha256 }) => ({ id, sha256 }))).toEqual(
      others.map((part) => ({ id: `<${part.contentId}>`, sha256: sha256(part.bytes) })),
    );
    for (const { name } of parts) expect(name).toMatch(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,70}$/);
    for (const part of submission.parts) {
      if (others.includes(part)) continue;
      const said = Buffer.from(part.bytes).toString('utf8').replace(/\r\n?/g, '\n').trimEnd();
      expect((mail.text ?? '').replace(/\r\n?/g, '\n')).toContain(said);
    }
  });
});

function hasPython(): boolean {
  try {
    execFileSync('python3', ['-c', 'import email'], { stdio: 'ignore', timeout: 20_000 });
    return true;
  } catch {
    console.info('no python3 with its email package here: the second opinion on the wire form is left out');
    return false;
  }
}

describe.skipIf(!hasPython())('by Python', () => {
  let seen: Record<'binary' | 'base64', Python[]>;

  beforeAll(() => {
    const dir = mkdtempSync(join(tmpdir(), 'postcard-wire-'));
    const ask = (transferEncoding: 'binary' | 'base64'): Python[] => {
      const paths = submissions.map((submission, i) => {
        const path = join(dir, `${transferEncoding}-${i}`);
        writeFileSync(path, mailOf(submission, transferEncoding));
        return path;
      });
      const out = execFileSync('python3', ['-c', PYTHON], {
        input: paths.join('\n'),
        timeout: 100_000,
        maxBuffer: 64e6,
      });
      return JSON.parse(out.toString()) as Python[];
    };
    try {
      seen = { binary: ask('binary'), base64: ask('base64') };
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it.each(
    cases.flatMap(([name], i) => (['binary', 'base64'] as const).map((encoding) => [name, encoding, i] as const)),
  )('%s arrives whole as %s', (_, encoding, i) => {
    if (seen === null) return;
    const submission = submissions[i] as Submission;
    const { leaves, defects } = seen[encoding][i] as Python;
    expect(defects).toEqual([]);
    const [root, presentation, ...parts] = leaves as [
      Python['leaves'][number],
      Python['leaves'][number],
      ...Python['leaves'],
    ];
    expect([root.type, presentation.type]).toEqual(['text/xml', 'application/smil']);
    expect(parts.map(({ id, sha256 }) => ({ id, sha256 }))).toEqual(
      submission.parts.map((part) => ({ id: `<${part.contentId}>`, sha256: sha256(part.bytes) })),
    );
    for (const { headers, type } of leaves) {
      expect(type).toMatch(/^[a-z0-9.+-]+\/[a-z0-9.+-]+$/);
      for (const header of headers) {
        expect(['content-id', 'content-location', 'content-transfer-encoding', 'content-type']).toContain(header);
      }
    }
    const soap = rootOf(root.text ?? '');
    const subject = textOf(soap, 'Body', 'SubmitReq', 'Subject');
    expect(subject ?? '').toBe(subjectFor(submission.subject ?? '', PROFILES.any.subject));
    // Every src is a part; nothing leads outside.
    const ids = new Set(submission.parts.map((part) => `cid:${part.contentId}`));
    const shown = elementsOf(rootOf(presentation.text ?? ''));
    expect(childOf(shown[0] as XmlElement, 'body')).toBeDefined();
    for (const { attributes } of shown) {
      expect(Object.keys(attributes).filter((name) => /^on|href/i.test(name))).toEqual([]);
      if (attributes.src !== undefined) expect(ids).toContain(attributes.src);
    }
  });
});

describe('for a carrier of ASCII', () => {
  it.each(cases.map(([name], i) => [name, i] as const))('%s has no other letter in subject and texts', async (_, i) => {
    const said = wordsFor(submissions[i] as Submission, {
      text: { length: 100_000, charset: 'us-ascii' },
      subject: { length: 40, encoding: 'us-ascii' },
    });
    if (!said.ok) throw new Error(said.words);
    expect(said.content.subject ?? '').toMatch(/^[\x20-\x7e]{0,40}$/);
    for (const { contentType, bytes } of said.content.parts) {
      if (contentType.startsWith('text/plain')) expect(Math.max(0, ...bytes)).toBeLessThan(0x80);
    }
  });
});
