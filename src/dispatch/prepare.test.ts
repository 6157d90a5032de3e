import { describe, expect, it } from 'vitest';
import { createLinkTokens, createShortener } from '../domain/links.ts';
import type { MessageRequest, Segment, Tracking } from '../domain/message.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Claim } from '../store/contract.ts';
import { createPreparer, type Prepared, prepareSpec, smsOf, submissionOf } from './prepare.ts';

type Media = SpecRow['media'];

function spec(segments: Segment[], more: Partial<MessageRequest> = {}, media: Media = [], no = 1): SpecRow {
  const body = { sender: 'Sender', content: { messageSegments: segments }, ...more };
  return { no, account: 1, sender: body.sender, body: JSON.stringify(body), acceptedAt: 0, media };
}

const none = async (): Promise<null> => null;

async function prepared(row: SpecRow, content: (hash: string) => Promise<Uint8Array | null> = none): Promise<Prepared> {
  const result = await prepareSpec(row, content);
  if (!result.ok) throw new Error(result.words);
  return result.prepared;
}

const upload = (contentId?: string): Segment => ({
  type: 'UPLOADED_REFERENCE',
  uploadedContentId: 'up',
  ...(contentId === undefined ? {} : { contentId }),
});

describe('a spec', () => {
  it('becomes parts in the order of its segments, with the bytes of each', async () => {
    const media: Media = [
      { segment: 1, hash: 'h1', contentType: 'image/png', name: 'my picture.png' },
      { segment: 3, hash: 'h3', contentType: 'image/JPEG; x=y', name: '' },
    ];
    const messageSegments: Segment[] = [
      { type: 'TEXT', text: 'Grüße 😀' },
      upload(),
      { type: 'SMIL', smil: '<smil/>', contentType: 'application/smil' },
      { type: 'LINK', contentUrl: 'https://x/' },
    ];
    const content = { title: 'Subject', messageSegments };
    const row = spec([], { content, options: { campaignReferenceId: 'camp' } }, media);
    const result = await prepared(row, async (hash) => Buffer.from(`bytes of ${hash}`));
    expect(result).toMatchObject({
      sender: 'Sender',
      subject: 'Subject',
      campaignReferenceId: 'camp',
    });
    expect(result.parts.map((part) => [part.contentId, part.contentType, Buffer.from(part.bytes).toString()])).toEqual([
      ['text_1.txt', 'text/plain; charset=utf-8', 'Grüße 😀'],
      ['my_picture.png', 'image/png', 'bytes of h1'],
      ['part_4.jpg', 'image/JPEG; x=y', 'bytes of h3'],
    ]);
  });

  it('gives the sender as carriers take it: digits without +, words as they are', async () => {
    expect((await prepared(spec([{ type: 'TEXT', text: 'x' }], { sender: '+441134960000' }))).sender).toBe(
      '441134960000',
    );
    expect((await prepared(spec([{ type: 'TEXT', text: 'x' }], { sender: 'My Shop' }))).sender).toBe('My Shop');
  });

  it.each<[string, Media, string]>([
    [
      'is not there',
      [{ segment: 0, hash: 'h', contentType: 'image/png', name: 'x' }],
      'content of segment 0 is gone or damaged',
    ],
    ['was never known', [], 'content of segment 0 is gone or damaged'],
  ])('is not sent when content %s', async (_, media, words) => {
    expect(await prepareSpec(spec([upload()], {}, media), none)).toEqual({ ok: false, words });
  });

  it('names its parts safely and without repetition, whatever the customer called them', async () => {
    const wanted = [
      'a b',
      'a b',
      'A_B',
      'ü',
      '😀',
      'x'.repeat(100),
      'x'.repeat(100),
      '../../etc/passwd',
      'a"<b>\r\nX: y',
      undefined,
      '',
    ];
    const row = spec(
      wanted.map((contentId) => ({ type: 'TEXT', text: 't', ...(contentId === undefined ? {} : { contentId }) })),
    );
    const names = (await prepared(row)).parts.map((part) => part.contentId);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._-]{1,64}$/);
    expect(new Set(names.map((name) => name.toLowerCase())).size).toBe(wanted.length);
    expect(names.slice(0, 3)).toEqual(['a_b_2', 'a_b_3', 'A_B']);
  });

  it('prints the presentation for its parts, by whatever name it calls them', async () => {
    const media: Media = [
      { segment: 1, hash: 'h', contentType: 'image/png', name: 'Zo\u00eb 1.png' },
      { segment: 3, hash: 'h', contentType: 'audio/amr', name: '' },
    ];
    const smil =
      '<?xml version="1.0"?><!DOCTYPE smil SYSTEM "x"><smil><head><layout><region id="A"/></layout></head><body>' +
      '<par dur="0:05"><text src=\'cid:my pic &amp; co\' region="A" alt="&lt;&quot;"/><ref src="Zo%C3%AB 1.png" region="B"/></par>' +
      '<par onload="x()"><script src="cid:x"/><audio src="https://x.example/s?a=b" begin="1s;2s"/></par><par/></body></smil>';
    const row = spec(
      [
        { type: 'TEXT', text: '1', contentId: 'my pic & co' },
        upload(),
        { type: 'SMIL', smil, contentType: 'application/smil' },
        { type: 'LINK', contentUrl: 'https://x.example/s?a=b' },
      ],
      {},
      media,
    );
    expect((await prepared(row, async () => Buffer.from('x'))).smil).toBe(
      '<?xml version="1.0" encoding="UTF-8"?><smil><head><layout><root-layout/><region id="A"/></layout></head><body>' +
        '<par dur="5000ms"><text src="cid:my_pic_co" region="A" alt="&lt;&quot;"/><img src="cid:Zoe_1.png"/></par>' +
        '<par><audio src="cid:part_4.amr"/></par></body></smil>',
    );
  });

  it.each([
    ['shows nothing', '<smil><body/></smil>'],
    ['shows what is not there', '<smil><body><img src="image_1"/></body></smil>'],
    ['cannot be read', 'taken by an older version'],
  ])('leaves it to the carrier to make a presentation where the given one %s', async (_, smil) => {
    const row = spec([
      { type: 'SMIL', smil, contentType: 'application/smil' },
      { type: 'TEXT', text: '1' },
    ]);
    expect((await prepared(row)).smil).toBeUndefined();
  });
});

describe('SMIL that came as a link or an upload', () => {
  const media = (contentType: string): Media => [
    { segment: 0, hash: 's', contentType, name: 'show.smil' },
    { segment: 1, hash: 'p', contentType: 'image/png', name: 'a.png' },
  ];
  const shown = (smil: string, contentType = 'application/smil', segments = [upload(), upload()]) =>
    prepareSpec(spec(segments, {}, media(contentType)), async (hash) => Buffer.from(hash === 's' ? smil : 'x'));

  it.each(['application/smil', 'Application/SMIL+xml; charset=utf-8'])('is the presentation, as %s', async (type) => {
    const result = await shown('<smil onload="x"><body><img src="a.png"/></body></smil>', type);
    if (!result.ok) throw new Error(result.words);
    expect(result.prepared.parts.map(({ contentId }) => contentId)).toEqual(['a.png']);
    expect(result.prepared.smil).toContain('<body><par><img src="cid:a.png" region="Image"/></par></body>');
  });

  it.each([
    ['<smil', 'segment 0 must be well-formed XML: '],
    [
      '<smil><body><img src="http://evil.example/"/></body></smil>',
      'segment 0 <img> at line 1, column 13: src must be ',
    ],
    ['<smil><body><img src="show.smil"/></body></smil>', 'segment 0 <img> at line 1, column 13: src must be '],
    [`<smil>${'x'.repeat(70_000)}</smil>`, 'segment 0 is SMIL of more than 65536 characters'],
  ])('is refused where it is none: %s', async (smil, words) => {
    expect(await shown(smil)).toEqual({ ok: false, error: 15013, words: expect.stringContaining(words) });
  });

  it('is refused beside another', async () => {
    const own: Segment = { type: 'SMIL', smil: '<smil/>', contentType: 'application/smil' };
    expect(await shown('<smil/>', 'application/smil', [upload(), own])).toEqual({
      ok: false,
      error: 15013,
      words: 'segment 1 is a second presentation; a message has one',
    });
  });
});

describe('the memory of preparations', () => {
  const media: Media = [{ segment: 0, hash: 'h', contentType: 'image/png', name: 'x' }];

  it('reads content once for all who ask at the same time, and for later specs with the same bytes', async () => {
    let reads = 0;
    const prepare = createPreparer(async () => {
      reads++;
      return Buffer.from('picture');
    });
    const rows = Array.from({ length: 50 }, (_, i) => spec([upload()], {}, media, 1 + (i % 10)));
    const results = await Promise.all(rows.map(prepare));
    await prepare(spec([upload()], {}, media, 99));
    expect(reads).toBe(1);
    expect(results.every((result) => result.ok)).toBe(true);
    // Shared by identity, so that carriers can keep what they make of it.
    expect(await prepare(rows[3] as SpecRow)).toBe(await prepare(rows[3] as SpecRow));
  });

  it('looks again after a failure of either kind', async () => {
    const answers: (() => Uint8Array | null)[] = [
      () => null,
      () => {
        throw new Error('away');
      },
      () => Buffer.from('x'),
    ];
    const prepare = createPreparer(async () => (answers.shift() as () => Uint8Array | null)());
    const row = spec([upload()], {}, media);
    expect((await prepare(row)).ok).toBe(false);
    await expect(prepare(row)).rejects.toThrow('away');
    expect((await prepare(row)).ok).toBe(true);
  });

  it('does not keep more bytes than it may', async () => {
    let reads = 0;
    const big = new Uint8Array(20 * 1024 * 1024);
    const prepare = createPreparer(async () => {
      reads++;
      return big;
    });
    const row = (no: number): SpecRow => spec([upload()], {}, [{ ...(media[0] as Media[0]), hash: `h${no}` }], no);
    for (let no = 1; no <= 6; no++) await prepare(row(no));
    expect(reads).toBe(6);
    await prepare(row(6));
    expect(reads).toBe(6);
    await prepare(row(1));
    expect(reads).toBe(7);
  });
});

describe('a submission', () => {
  const claim: Claim = {
    token: 1,
    leader: 42,
    spec: 1,
    members: [
      { no: 42, to: '491', key: null },
      { no: 43, to: '492', key: null },
    ],
    generation: 0,
    attempt: 1,
    notBeforeUs: 0,
    paced: false,
    validUntil: 5_000,
  };
  const parts: Prepared = { sender: 'S', parts: [] };

  it('names all members, the end of validity, and an id of this installation', () => {
    expect(submissionOf(claim, parts, 'inst')).toEqual({
      sender: 'S',
      parts: [],
      transactionId: 'inst-42',
      recipients: ['491', '492'],
      validUntil: 5_000,
    });
  });

  it('keeps its transaction id over attempts and tokens, and has a new one for each generation', () => {
    const ids = [
      claim,
      { ...claim, attempt: 7, token: 99 },
      { ...claim, generation: 1 },
      { ...claim, generation: 2 },
    ].map((one) => submissionOf(one, parts, 'inst').transactionId);
    expect(ids).toEqual(['inst-42', 'inst-42', 'inst-42-1', 'inst-42-2']);
  });
});

describe('short links', () => {
  const KEY = '00112233445566778899aabbccddeeff';
  const shortener = createShortener('https://s.example', KEY);
  const tokens = createLinkTokens(KEY);
  const URLS = ['https://shop.example/sale', 'https://shop.example/terms'];
  const linked = (tracking: Tracking = {}): SpecRow => {
    const row = spec([
      { type: 'TEXT', text: `Sale: ${URLS[0]}!` },
      { type: 'UPLOADED_REFERENCE', uploadedContentId: 'up' },
      { type: 'TEXT', text: 'No link, only example.com' },
    ]);
    const body = { ...JSON.parse(row.body), links: URLS, tracking };
    body.options = { smsFailover: { text: `Sale ${URLS[0]}, terms ${URLS[1]}` } };
    return {
      ...row,
      body: JSON.stringify(body),
      media: [{ segment: 1, hash: 'h', contentType: 'text/plain', name: '' }],
    };
  };
  const file = async (): Promise<Uint8Array> => Buffer.from(URLS[0] as string);
  const claim = (no: number, leader = no): Claim => ({
    token: 1,
    leader,
    spec: 1,
    members: [{ no, to: '441134960001', key: null }],
    generation: 0,
    attempt: 1,
    notBeforeUs: 0,
    paced: false,
    validUntil: 9,
  });
  async function ready(row = linked()): Promise<Prepared> {
    const result = await prepareSpec(row, file, shortener);
    if (!result.ok) throw new Error(result.words);
    return result.prepared;
  }
  const textsOf = (parts: { bytes: Uint8Array }[]): string[] => parts.map(({ bytes }) => Buffer.from(bytes).toString());

  it("are each message's own, in its texts and nowhere else", async () => {
    const shared = await ready();
    for (const no of [7, 8]) {
      const submission = submissionOf(claim(no), shared, 'i');
      expect(textsOf(submission.parts)).toEqual([
        `Sale: https://s.example/l/${tokens.print(no, 0)}!`,
        URLS[0],
        'No link, only example.com',
      ]);
      expect(submission).not.toHaveProperty('own');
      // What is the same for all is the same object, and what is shared is not written to.
      expect(submission.parts[1]).toBe(shared.parts[1]);
      expect(submission.parts).not.toBe(shared.parts);
    }
    expect(textsOf(shared.parts)[0]).toHaveLength(`Sale: https://s.example/l/${tokens.print(7, 0)}!`.length);
  });

  it('stand in the charset of the part that a carrier takes', async () => {
    const shared = await ready();
    const ascii = {
      ...shared,
      parts: shared.parts.map((part) => ({ ...part, contentType: 'text/plain; charset=us-ascii' })),
    };
    expect(submissionOf(claim(7), ascii, 'i').parts[0]?.contentType).toBe('text/plain; charset=us-ascii');
  });

  it('of a group are those of its first member', async () => {
    const group = { ...claim(7), members: [9, 10].map((no) => ({ no, to: String(no), key: null })) };
    const [text] = textsOf(submissionOf(group, await ready(), 'i').parts);
    expect(text).toContain(tokens.print(9, 0));
  });

  it('are in the SMS that follows too, under the same tokens', () => {
    const { text } = smsOf(claim(7, -7), linked({ removeProtocol: true }), 'i', shortener);
    expect(text).toBe(`Sale s.example/l/${tokens.print(7, 0)}, terms s.example/l/${tokens.print(7, 1)}`);
  });

  it.each<[string, Tracking]>([['says no', { shortenUrl: false }]])(
    'are none where the customer %s',
    async (_, tracking) => {
      const shared = await ready(linked(tracking));
      expect(submissionOf(claim(7), shared, 'i').parts).toBe(shared.parts);
      expect(textsOf(shared.parts)[0]).toBe(`Sale: ${URLS[0]}!`);
      expect(smsOf(claim(7, -7), linked(tracking), 'i', shortener).text).toContain(URLS[0]);
    },
  );

  it('that the accept has not put down stay as they are, whatever would be found now', async () => {
    const row = linked();
    const body = JSON.parse(row.body);
    const shared = await ready({ ...row, body: JSON.stringify({ ...body, links: [URLS[1]] }) });
    expect(textsOf(submissionOf(claim(7), shared, 'i').parts)[0]).toBe(`Sale: ${URLS[0]}!`);
  });
});
