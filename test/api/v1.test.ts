/** The deprecated endpoints of the first version, held against the published examples. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { olderAnswer, olderErrorAnswer, olderSendAnswer } from '../../src/api/answers.ts';
import { errorFor } from '../../src/api/errors.ts';
import type { Spec } from '../../src/domain/message.ts';
import { readForm } from '../../src/domain/report.ts';
import { formatInstant } from '../../src/domain/schedule.ts';
import { readXml } from '../../src/xml.ts';
import { type Given, type OpenDoor, openDoor } from './door.ts';
import { NOW } from './send.table.ts';

const CAT =
  'https://upload.wikimedia.org/wikipedia/commons/thumb/6/60/Depth_of_field_Cat.jpg/320px-Depth_of_field_Cat.jpg';
const NAME = '320px-Depth_of_field_Cat.jpg';
const link = { contentId: NAME, contentType: 'image/jpeg', contentUrl: CAT };
const UPLOADED = 'B44419205B27012D82F3BAD7B7EB37BAC884DBC91685390C3232D2191DC9D5EAF32F119D3530679F9B251AB689B4A60D';
const uploaded = { uploadedContentId: UPLOADED };
const part = (n: number): object => ({ text: `This is a sample message (part ${n})` });
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor();
  await door.store.putContent('a'.repeat(64), new Uint8Array([1]));
  const about = { name: 'p', hash: 'a'.repeat(64), contentType: 'image/png', size: 1, validityMs: 1e9 };
  await door.store.putUpload({ account: 1, id: UPLOADED, ...about });
});
afterAll(() => door.close());

const post = (body: unknown, headers: Record<string, string> = {}): Promise<Given> =>
  door.ask('/mms/1/advanced', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
const message = (more: object = {}): object => ({
  destinations: [{ to: '41793026727' }],
  from: 'InfoMMS',
  messageSegments: [{ text: 'This is a sample message' }],
  ...more,
});

interface Entry {
  to: string;
  messageId: string;
  status: { id: number };
}
async function sent(body: unknown): Promise<{ bulkId: string; messages: Entry[] }> {
  const { status, body: text } = await post(body);
  expect([status, text]).toEqual([200, text]);
  return olderSendAnswer.parse(JSON.parse(text));
}
/** What the core was given. */
async function specOf(messageId: string): Promise<Spec> {
  const no = door.ids.parse('message', messageId);
  const story = await door.store.story(1, no === null ? { key: messageId } : { no });
  return JSON.parse(story?.spec.body as string) as Spec;
}

describe('POST /mms/1/advanced', () => {
  it('answers in the published shape, member by member', async () => {
    const { status, headers, body } = await post({ messages: [message({ title: 'This is sample subject' })] });
    expect(status).toBe(200);
    const answer = JSON.parse(body);
    // Published: "Response for request with one destination".
    expect(body).toBe(
      JSON.stringify({
        bulkId: answer.bulkId,
        messages: [
          {
            to: '41793026727',
            status: {
              groupId: 1,
              groupName: 'PENDING',
              id: 26,
              name: 'PENDING_ACCEPTED',
              description: 'Message sent to next instance',
            },
            messageId: answer.messages[0].messageId,
          },
        ],
      }),
    );
    expect(headers.get('deprecation')).toBe('Fri, 26 Apr 2024 10:00:00 GMT');
    expect(headers.get('sunset')).toBe('Mon, 01 Jun 2026 00:00:00 GMT');
    expect(headers.get('link')).toBe('</mms/2/messages>; rel="successor-version"');
  });

  it('takes the published requests', async () => {
    const one = await sent({
      messages: [message({ messageSegments: [{ text: 'This is a sample message' }, link, uploaded] })],
    });
    expect((await specOf((one.messages[0] as Entry).messageId)).content).toEqual({
      messageSegments: [
        { type: 'TEXT', text: 'This is a sample message' },
        { type: 'LINK', contentId: NAME, contentUrl: CAT, contentType: 'image/jpeg' },
        { type: 'UPLOADED_REFERENCE', uploadedContentId: UPLOADED },
      ],
    });
    const smil =
      '<smil><head><layout><root-layout/></layout></head><body><par dur="10s"><text src="body.txt"/></par></body></smil>';
    const shown = await sent({
      messages: [
        message({
          messageSegments: [
            { contentId: 'smil', contentType: 'application/smil', smil },
            { contentId: 'body.txt', text: 'This is a sample message' },
          ],
        }),
      ],
    });
    expect((await specOf((shown.messages[0] as Entry).messageId)).content.messageSegments[0]).toEqual({
      type: 'SMIL',
      contentId: 'smil',
      smil,
      contentType: 'application/smil',
    });
  });

  it('takes the published fully-featured request: bulk, own ids, window, validity, reports', async () => {
    const days = ['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'];
    const window = { days, from: { hour: 6, minute: 0 }, to: { hour: 15, minute: 30 } };
    const answer = await sent({
      bulkId: 'BULK-ID-123-xyz',
      messages: [
        {
          callbackData: 'DLR callback data',
          destinations: [{ messageId: 'MESSAGE-ID-123-xyz', to: '41793026727' }, { to: '41793026834' }],
          from: 'InfoSMS',
          intermediateReport: true,
          notifyUrl: 'https://www.example.com/sms/advanced',
          messageSegments: [part(1), link, part(2), uploaded],
          validityPeriod: 720,
          entityId: 'e',
          applicationId: 'a',
          regional: { southKorea: { resellerCode: 123456789 } },
        },
        message({ deliveryTimeWindow: window, from: '41793026700', destinations: [{ to: '41793026700' }] }),
      ],
    });
    expect(answer.bulkId).toBe('BULK-ID-123-xyz');
    expect(answer.messages.map(({ to, messageId }) => [to, messageId.length])).toEqual([
      ['41793026727', 'MESSAGE-ID-123-xyz'.length],
      ['41793026834', 36],
      ['41793026700', 36],
    ]);
    expect(await specOf('MESSAGE-ID-123-xyz')).toMatchObject({
      sender: 'InfoSMS',
      options: {
        platform: { entityId: 'e', applicationId: 'a' },
        validityPeriod: { amount: 720, timeUnit: 'MINUTES' },
        regional: { southKorea: { resellerCode: 123456789 } },
      },
      webhooks: {
        delivery: { url: 'https://www.example.com/sms/advanced', intermediateReport: true },
        callbackData: 'DLR callback data',
      },
    });
    expect((await specOf((answer.messages[2] as Entry).messageId)).options?.deliveryTimeWindow).toEqual(window);
  });

  it('answers a group with an entry for each member', async () => {
    const group = [{ to: '41793026728' }, { to: '41793026729' }];
    const { messages } = await sent({ messages: [message({ destinations: [{ group }] })] });
    expect(messages.map(({ to }) => to)).toEqual(['41793026728', '41793026729']);
    expect(new Set(messages.map(({ messageId }) => messageId)).size).toBe(2);
  });

  it('keeps media in base64 as uploads, the same ones for the same request', async () => {
    const body = {
      messages: [
        message({
          messageSegments: [{ contentId: 'dot', contentType: 'image/png', contentBase64: PIXEL }, { text: 'x' }],
        }),
      ],
    };
    const headers = { 'idempotency-key': 'v1-again' };
    const first = await post(body, headers);
    expect(first.status).toBe(200);
    expect((await post(body, headers)).body).toBe(first.body);
    const id = (JSON.parse(first.body).messages[0] as Entry).messageId;
    const story = await door.store.story(1, { no: door.ids.parse('message', id) as number });
    const [media] = story?.spec.media ?? [];
    expect(media).toMatchObject({ segment: 0, contentType: 'image/png', name: 'dot' });
    expect(Buffer.from((await door.store.content(media?.hash as string)) as Uint8Array).toString('base64')).toBe(PIXEL);
  });

  it('waits until sendAt, where all messages have the same', async () => {
    const sendAt = formatInstant(NOW + 86_400_000);
    const { bulkId } = await sent({ messages: [message({ sendAt }), message({ sendAt })] });
    const bulk = JSON.parse((await door.ask(`/mms/2/bulks?bulkId=${bulkId}`)).body);
    expect(bulk.sendAt).toBe(sendAt);
    const mixed = await post({ messages: [message({ sendAt }), message()] });
    expect(mixed.status).toBe(400);
    expect(mixed.body).toContain('must all have the same sendAt');
  });

  const postXml = (inner: string, type = 'application/xml', headers: Record<string, string> = {}): Promise<Given> =>
    door.ask('/mms/1/advanced', {
      method: 'POST',
      headers: { 'content-type': type, ...headers },
      body: `<?xml version="1.0" encoding="UTF-8"?><MmsAdvancedRequest>\n  ${inner}\n</MmsAdvancedRequest>\n`,
    });
  const bare = `<messages><message><destinations><destination><to>41793026727</to></destination></destinations><from>InfoMMS</from>
      <messageSegments><messageSegments><text> a &lt;b> </text></messageSegments></messageSegments></message></messages>`;

  it('takes requests in XML, as published: lists, numbers, truth values, a window, a group', async () => {
    const { status, body } = await postXml(
      `<bulkId>XML-BULK-1</bulkId>
  <messages>
    <message>
      <callbackData>DLR callback data</callbackData>
      <destinations>
        <destination>
          <messageId>XML-MESSAGE-1</messageId>
          <to>41793026727</to>
        </destination>
        <destination>
          <group>
            <group>
              <to>41793026728</to>
            </group>
            <group>
              <to>41793026729</to>
            </group>
          </group>
        </destination>
      </destinations>
      <deliveryTimeWindow>
        <days>
          <days>MONDAY</days>
          <days>TUESDAY</days>
        </days>
        <from><hour>6</hour><minute>0</minute></from>
        <to><hour>15</hour><minute>30</minute></to>
      </deliveryTimeWindow>
      <from>InfoSMS</from>
      <intermediateReport>true</intermediateReport>
      <notifyUrl>https://www.example.com/sms/advanced</notifyUrl>
      <messageSegments>
        <messageSegments>
          <text>This is a sample message (part 1)</text>
        </messageSegments>
        <messageSegments>
          <contentId>${NAME}</contentId>
          <contentType>image/jpeg</contentType>
          <contentUrl>${CAT}</contentUrl>
        </messageSegments>
        <messageSegments>
          <contentId>dot</contentId>
          <contentType>image/png</contentType>
          <contentBase64>${PIXEL}</contentBase64>
        </messageSegments>
      </messageSegments>
      <title>This is sample subject</title>
      <validityPeriod>720</validityPeriod>
    </message>
  </messages>`,
    );
    expect([status, body]).toEqual([200, body]);
    const answer = olderSendAnswer.parse(JSON.parse(body));
    expect(answer.bulkId).toBe('XML-BULK-1');
    expect(answer.messages.map(({ to }) => to)).toEqual(['41793026727', '41793026728', '41793026729']);
    expect(await specOf('XML-MESSAGE-1')).toMatchObject({
      sender: 'InfoSMS',
      content: {
        title: 'This is sample subject',
        messageSegments: [
          { type: 'TEXT', text: 'This is a sample message (part 1)' },
          { type: 'LINK', contentId: NAME, contentUrl: CAT, contentType: 'image/jpeg' },
          { type: 'UPLOADED_REFERENCE', contentId: 'dot' },
        ],
      },
      options: {
        validityPeriod: { amount: 720, timeUnit: 'MINUTES' },
        deliveryTimeWindow: {
          days: ['MONDAY', 'TUESDAY'],
          from: { hour: 6, minute: 0 },
          to: { hour: 15, minute: 30 },
        },
      },
      webhooks: {
        delivery: { url: 'https://www.example.com/sms/advanced', intermediateReport: true },
        callbackData: 'DLR callback data',
      },
    });
  });

  it('keeps the blanks of a text in XML, and answers in XML where Accept says so', async () => {
    const { status, body } = await postXml(bare, 'text/xml; charset=utf-8', { accept: 'application/xml' });
    expect([status, body.slice(0, 50)]).toEqual([200, '<?xml version="1.0" encoding="UTF-8"?><SendResult>']);
    const id = /<messageId>([^<]+)<\/messageId>/.exec(body)?.[1] as string;
    expect((await specOf(id)).content.messageSegments).toEqual([{ type: 'TEXT', text: ' a <b> ' }]);
  });

  it.each([
    ['<messages/>', 'messages must not be empty'],
    ['<messages></messages>', 'messages must not be empty'],
    ['', 'messages must not be null'],
    [bare.replace('InfoMMS', ''), 'messages[0].from must not be blank'],
    [
      bare.replace('<from>', '<validityPeriod>soon</validityPeriod><from>'),
      'messages[0].validityPeriod must be a integer',
    ],
    ['<messages><message>x</message></messages>', 'messages[0] must be a object'],
    // Not the last of them only.
    [bare + bare, 'messages[0] must be a object'],
    [bare.replace('<from>', '<from>Other</from><from>'), 'messages[0].from must be a string'],
    ['<a>', 'not well-formed XML'],
  ])('says what is wrong with a request in XML: %s', async (inner, words) => {
    const { status, body } = await postXml(inner, 'application/xml', { accept: 'application/xml' });
    expect(status).toBe(400);
    expect(body).toContain('<messageId>BAD_REQUEST</messageId>');
    expect(body).toContain(words);
  });

  it('takes no document type, no other root and no other encoding of XML', async () => {
    const send = (body: string, type = 'application/xml'): Promise<Given> =>
      door.ask('/mms/1/advanced', { method: 'POST', headers: { 'content-type': type }, body });
    const doctype = await send('<!DOCTYPE a [<!ENTITY b "c">]><MmsAdvancedRequest>&b;</MmsAdvancedRequest>');
    expect([doctype.status, doctype.body]).toEqual([400, expect.stringContaining('DOCTYPE is not allowed')]);
    const root = await send('<html/>');
    expect([root.status, root.body]).toEqual([400, expect.stringContaining('the root must be MmsAdvancedRequest')]);
    expect((await send('<MmsAdvancedRequest/>', 'application/xml; charset=utf-16')).status).toBe(415);
  });

  it('tells reports by webhook in the old shape', async () => {
    const url = 'https://www.example.com/v1/reports';
    const { messages } = await sent({ messages: [message({ destinations: [{ to: 'nobody' }], notifyUrl: url })] });
    const { webhooks } = await door.store.webhookNext(100, 60_000);
    const told = webhooks.filter(({ endpoint }) => endpoint.url === url);
    expect(told.map(({ endpoint }) => readForm(endpoint.contentType))).toEqual([
      { mediaType: 'application/json', older: true },
    ]);
    const { messageId } = messages[0] as Entry;
    const shown = JSON.parse((await door.ask(`/webhooks/1/deliveries?messageId=${messageId}`)).body);
    expect(shown.results[0].contentType).toBe('application/json');
  });

  it('answers in XML where that is asked for, as published', async () => {
    const { headers, body } = await post({ messages: [message()] }, { accept: 'application/xml' });
    expect(headers.get('content-type')).toContain('application/xml');
    const read = readXml(body);
    expect(read.ok).toBe(true);
    const id = /<messageId>([^<]+)<\/messageId>/.exec(body)?.[1];
    const bulkId = /<bulkId>([^<]+)<\/bulkId>/.exec(body)?.[1];
    // Published: "Response for request with one destination", without its line breaks.
    expect(body).toBe(
      `<?xml version="1.0" encoding="UTF-8"?><SendResult><bulkId>${bulkId}</bulkId><messages><messages><to>41793026727</to>` +
        '<status><groupId>1</groupId><groupName>PENDING</groupName><id>26</id><name>PENDING_ACCEPTED</name>' +
        `<description>Message sent to next instance</description></status><messageId>${id}</messageId></messages></messages></SendResult>`,
    );
  });

  it('tells errors in XML where that is asked for', async () => {
    const { status, body } = await post({ messages: [message({ from: undefined })] }, { accept: 'application/xml' });
    expect(status).toBe(400);
    expect(body).toBe(
      '<?xml version="1.0" encoding="UTF-8"?><ApiException><requestError><serviceException><messageId>BAD_REQUEST</messageId>' +
        '<text>Bad request: messages[0].from must not be null</text></serviceException></requestError></ApiException>',
    );
  });

  it.each<[string, unknown, Record<string, string[]> | undefined]>([
    ['no messages', {}, { messages: ['must not be null'] }],
    ['no sender', { messages: [message({ from: undefined })] }, { 'messages[0].from': ['must not be null'] }],
    [
      'a title that is too long',
      { messages: [message({ title: 'x'.repeat(67) })] },
      { 'messages[0].title': ['size must be between 0 and 66'] },
    ],
    [
      'a validity of nothing',
      { messages: [message({ validityPeriod: 0 })] },
      {
        'messages[0].validityPeriod': ['must be greater than or equal to 1'],
      },
    ],
    [
      'a URL that is none',
      { messages: [message({ notifyUrl: 'nowhere' })] },
      { 'messages[0].notifyUrl': ['is not a valid url'] },
    ],
    [
      'base64 that is none',
      { messages: [message({ messageSegments: [{ contentType: 'image/png', contentBase64: '???' }] })] },
      {
        'messages[0].messageSegments[0].contentBase64': ['is not valid Base64'],
      },
    ],
    [
      'media without a type',
      { messages: [message({ messageSegments: [{ contentBase64: PIXEL }] })] },
      {
        'messages[0].messageSegments[0].contentBase64': ['needs a contentType that is a media type'],
      },
    ],
    [
      'a segment of nothing',
      { messages: [message({ messageSegments: [{ contentId: 'x' }] })] },
      {
        'messages[0].messageSegments[0]': ['must have text, contentUrl, smil, contentBase64 or uploadedContentId'],
      },
    ],
    ['an unknown upload', { messages: [message({ messageSegments: [{ uploadedContentId: 'NONE' }] })] }, undefined],
    ['no object at all', 'x', undefined],
    ['wrong types all over', { messages: [5, null, { messageSegments: 7, destinations: 'x' }] }, undefined],
  ])('refuses %s in the older form', async (_, body, errors) => {
    const { status, headers, body: text } = await post(body);
    expect(status).toBe(400);
    const { requestError } = olderErrorAnswer.parse(JSON.parse(text));
    expect(requestError.serviceException.messageId).toBe('BAD_REQUEST');
    if (errors) expect(requestError.serviceException.validationErrors).toEqual(errors);
    expect(headers.get('deprecation')).not.toBeNull();
  });

  it('tells a wrong type, a wrong key and a broken body in the older form too', async () => {
    const typed = await door.ask('/mms/1/advanced', {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: 'x',
    });
    expect([typed.status, JSON.parse(typed.body).requestError.serviceException.messageId]).toEqual([
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ]);
    const broken = await door.ask('/mms/1/advanced', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"messages":',
    });
    expect([broken.status, JSON.parse(broken.body).requestError.serviceException.messageId]).toEqual([
      400,
      'BAD_REQUEST',
    ]);
    for (const { headers } of [typed, broken]) expect(headers.get('sunset')).toBe('Mon, 01 Jun 2026 00:00:00 GMT');
    const keyed = await post({}, { authorization: 'App wrong' });
    expect([keyed.status, JSON.parse(keyed.body).requestError.serviceException.messageId]).toEqual([
      401,
      'UNAUTHORIZED',
    ]);
    expect((await door.ask('/mms/1/advanced')).status).toBe(405);
  });
});

it.each([
  ['/mms/1/advanced', 'POST', '/mms/2/messages'],
  ['/mms/1/reports', 'GET', '/mms/2/reports'],
  ['/mms/1/logs', 'GET', '/mms/2/logs'],
])(
  '%s says that it is deprecated on every refusal too: no key, no right, wrong method, too busy',
  async (path, method, successor) => {
    const said = ({ status, headers }: Given): unknown => [
      status,
      ...['deprecation', 'sunset', 'link'].map((name) => headers.get(name)),
    ];
    const dates = [
      'Fri, 26 Apr 2024 10:00:00 GMT',
      'Mon, 01 Jun 2026 00:00:00 GMT',
      `<${successor}>; rel="successor-version"`,
    ];
    expect(said(await door.ask(path, { method, headers: { authorization: 'App wrong' } }))).toEqual([401, ...dates]);
    expect(said(await door.ask(path, { method: 'DELETE' }))).toEqual([405, ...dates]);
    const xml = await door.ask(path, { method, headers: { authorization: 'App wrong', accept: 'application/xml' } });
    expect([xml.headers.get('content-type'), xml.headers.get('sunset')]).toEqual([
      'application/xml; charset=UTF-8',
      dates[1],
    ]);
    for (const code of ['E403', 'E429', 'E500', 'E503'] as const) {
      expect(errorFor(path, code).headers).toMatchObject({ deprecation: dates[0], sunset: dates[1], link: dates[2] });
    }
  },
);

it('the 121st log request within a minute is told 429 with these headers', async () => {
  const busy = await openDoor();
  try {
    const given: Given[] = [];
    for (let n = 0; n < 122 && given.at(-1)?.status !== 429; n++) given.push(await busy.ask('/mms/1/logs?limit=1'));
    const last = given.at(-1);
    expect([last?.status, last?.headers.get('sunset'), last?.headers.has('retry-after')]).toEqual([
      429,
      'Mon, 01 Jun 2026 00:00:00 GMT',
      true,
    ]);
  } finally {
    await busy.close();
  }
});

describe('GET /mms/1/reports and /mms/1/logs', () => {
  it('give reports once, in the old shape', async () => {
    const { messages, bulkId } = await sent({
      messages: [message({ callbackData: 'cb', entityId: 'e', applicationId: 'a', destinations: [{ to: 'nobody' }] })],
    });
    const { messageId } = messages[0] as Entry;
    const { status, headers, body } = await door.ask(`/mms/1/reports?bulkId=${bulkId}`);
    expect(status).toBe(200);
    expect(headers.get('sunset')).toBe('Mon, 01 Jun 2026 00:00:00 GMT');
    const [report] = olderAnswer.parse(JSON.parse(body)).results;
    expect(Object.keys(JSON.parse(body).results[0])).toEqual([
      'bulkId',
      'messageId',
      'to',
      'from',
      'sentAt',
      'doneAt',
      'mmsCount',
      'callbackData',
      'price',
      'status',
      'error',
      'entityId',
      'applicationId',
    ]);
    expect(report).toMatchObject({ bulkId, messageId, to: 'nobody', from: 'InfoMMS', mmsCount: 1, callbackData: 'cb' });
    expect(report?.status).toMatchObject({ groupName: 'REJECTED', id: 52 });
    expect(JSON.parse((await door.ask(`/mms/2/reports?bulkId=${bulkId}`)).body).results).toEqual([]);
  });

  it('give logs with their content, found by the old names', async () => {
    const destinations = [{ to: '41793027777' }];
    const { messages } = await sent({
      messages: [
        message({
          from: '41793020000',
          title: 'Message title',
          destinations,
          messageSegments: [{ contentId: 'c', text: 'some text' }, link],
        }),
      ],
    });
    const { body, headers } = await door.ask('/mms/1/logs?from=41793020000&to=41793027777&limit=5');
    expect(headers.get('deprecation')).toBe('Fri, 26 Apr 2024 10:00:00 GMT');
    const { results } = olderAnswer.parse(JSON.parse(body));
    // The members of the published example, in its order.
    expect(Object.keys(JSON.parse(body).results[0])).toEqual([
      'bulkId',
      'messageId',
      'to',
      'from',
      'title',
      'messageSegments',
      'sentAt',
      'doneAt',
      'mmsCount',
      'price',
      'status',
      'error',
    ]);
    expect(results).toHaveLength(1);
    expect(results[0]).toMatchObject({
      messageId: (messages[0] as Entry).messageId,
      to: '41793027777',
      from: '41793020000',
      title: 'Message title',
      messageSegments: [
        { contentId: 'c', text: 'some text' },
        { contentId: NAME, contentUrl: CAT, contentType: 'image/jpeg' },
      ],
    });
    expect(JSON.parse((await door.ask('/mms/1/logs?to=41793027778')).body)).toEqual({ results: [] });
  });

  it('refuse what makes no sense in the older form, under the old names', async () => {
    const { status, body } = await door.ask('/mms/1/logs?limit=0&from=%00');
    expect(status).toBe(400);
    const { validationErrors } = olderErrorAnswer.parse(JSON.parse(body)).requestError.serviceException;
    expect(Object.keys(validationErrors ?? {}).sort()).toEqual(['from', 'limit']);
    expect((await door.ask('/mms/1/reports', { headers: { authorization: 'App no' } })).status).toBe(401);
  });
});
