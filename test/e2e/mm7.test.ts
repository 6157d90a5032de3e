/**
 * A carrier as an operator sets it up, seen from the carrier's side: a whole server, and MMSCs of this test's own that read and
 * write MM7 with nothing but strings. Each key of the configuration shows on the wire; what the carrier says moves the message; bulks
 * are called back; a second carrier stands in; handsets' messages, STOP and START come back in.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { ADMIN, headersOf, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-5-MM7-1-2';
const dir = mkdtempSync(join(tmpdir(), 'postcard-mm7-'));

interface Operation {
  operation: string;
  headers: IncomingHttpHeaders;
  body: string;
  to: string;
}

/** What an MMSC says to a SubmitReq: a status code, or nothing and hangs up. */
type Says = (asked: Operation) => number | 'hangs up';

class Mmsc {
  readonly asked: Operation[] = [];
  says: Says = () => 1000;
  peer: Peer | null = null;

  async open(): Promise<void> {
    this.peer = await openPeer(({ headers, body }, response) => {
      const operation = /<(?:\w+:)?(SubmitReq|CancelReq|ReplaceReq)[\s>]/.exec(body)?.[1] ?? '';
      const to = /<mm7:To><mm7:\w+>\+?(\d+)/.exec(body)?.[1] ?? '';
      const asked = { operation, headers, body, to };
      this.asked.push(asked);
      const code = operation === 'SubmitReq' ? this.says(asked) : 1000;
      if (code === 'hangs up') return void response.destroy();
      const tx = /TransactionID[^>]*>([^<]*)</.exec(body)?.[1] ?? '';
      const id = code === 1000 ? `<MessageID>&lt;Id-${this.asked.length}@mmsc&gt;</MessageID>` : '';
      const answer = operation.replace('Req', 'Rsp');
      response.setHeader('content-type', 'text/xml');
      response.end(
        `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID>${tx}</TransactionID></e:Header><e:Body><${answer}><Status><StatusCode>${code}</StatusCode><StatusText>as told</StatusText></Status>${id}</${answer}></e:Body></e:Envelope>`,
      );
    });
  }

  submitted = (to: string): Operation[] => this.asked.filter((one) => one.operation === 'SubmitReq' && one.to === to);
  /** The first that was submitted for this number. */
  first = (to: string): Promise<Operation> => until(() => this.submitted(to)[0], `a SubmitReq for ${to}`);
}

const north = new Mmsc();
const south = new Mmsc();
let running: Running;
let customer: Peer;
interface Report {
  messageId: string;
  to: string;
  status: { id: number };
  error: { id: number };
}

beforeAll(async () => {
  [customer] = await Promise.all([openPeer(), north.open(), south.open()]);
  writeFileSync(
    join(dir, 'postcard.yaml'),
    `carriers:
  - name: north
    type: mm7
    url: "${north.peer?.url}/mm7?link=7"
    username: acme
    password: secret
    namespace: "${NS}"
    version: 5.6.0
    soapAction: "urn:submit"
    vaspId: vasp-1
    vasId: vas-2
    serviceCode: gold
    transferEncoding: base64
    plus: true
    numberSuffix: /TYPE=PLMN
    senderForm: shortCode
    chargedParty: Sender
    chargedPartyId: party-3
    messageClass: Informational
    priority: High
    readReply: true
    distributionIndicator: false
    allowAdaptations: false
    expiry: relative
    handOverEarlyMs: 3600000
    extraHeaders: {X-Carrier-Id: "31"}
    extraElements:
      - { name: ContentClass, value: image-rich }
      - { name: Callback, namespace: "urn:example:kr", value: "{sender}", after: ServiceCode }
    resellerCode: { element: Reseller, namespace: "urn:example:kr", after: ServiceCode }
    profile: image-rich
    onUnknown: fail
    statusCodes: { "2003": retry, "4006": refuse, "2901": throttle }
    errors: { "4006": 15019 }
    concurrency: 4
    ratePerSecond: 100
    timeoutMs: 5000
    inbound: { secret: in-north, allow: [127.0.0.0/8] }
  - name: south
    type: mm7
    url: "${south.peer?.url}/mm7?link=7"
    vasId: south
    plus: false
    reports: false
    resellerCode: { header: X-Reseller }
routes:
  - { to: 82, carriers: [north] }
  - { to: 83, carriers: [south] }
  - { carriers: [north, south] }
resellerCodeRequired: [82, 83]
`,
  );
  const settings = {
    POSTCARD_SANDBOX: 'false',
    POSTCARD_ADMIN_KEY: ADMIN,
    POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
    POSTCARD_LOG_LEVEL: 'error',
  };
  running = await startFrom(sourcesIn(dir, settings));
});

afterAll(async () => {
  await running?.stop();
  for (const peer of [north.peer, south.peer, customer]) peer?.close();
  rmSync(dir, { recursive: true, force: true });
});

async function post(to: string[], more: object = {}, options: object = {}): Promise<Response> {
  return fetch(`${running.url}/mms/2/messages`, {
    method: 'POST',
    headers: headersOf(),
    body: JSON.stringify({
      messages: [
        {
          sender: '12345',
          destinations: to.map((one) => ({ to: one })),
          content: { title: 'Hi & bye', messageSegments: [{ type: 'TEXT', text: 'grüße' }] },
          webhooks: { delivery: { url: `${customer.url}/reports` } },
          ...more,
        },
      ],
      options,
    }),
  });
}

async function send(to: string, more: object = {}, options: object = {}): Promise<string> {
  const response = await post([to], more, options);
  const body = (await response.json()) as { messages: { messageId: string }[] };
  expect(response.status, JSON.stringify(body)).toBe(200);
  return (body.messages[0] as { messageId: string }).messageId;
}

/** The reports that the customer was told. */
const told = (): Report[] => customer.results<Report>('/reports');
const final = (id: string): Promise<Report> =>
  until(() => told().find((one) => one.messageId === id), `the report of ${id}`);

/** Calls the listener as the carrier does. */
async function call(operation: string, inner: string, path = 'north', secret = 'in-north'): Promise<number> {
  const body = `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID xmlns="${NS}">c-${Math.random()}</TransactionID></e:Header><e:Body><${operation} xmlns="${NS}"><MM7Version>5.6.0</MM7Version>${inner}</${operation}></e:Body></e:Envelope>`;
  const response = await fetch(`${running.carrierUrl}/mm7/${path}`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'text/xml', 'x-postcard-secret': secret },
  });
  await response.arrayBuffer();
  return response.status;
}

const idOf = (to: string, carrier = north): string => {
  const place = carrier.asked.findIndex((one) => one.operation === 'SubmitReq' && one.to === to);
  return `Id-${place + 1}`;
};

describe('a configured carrier', () => {
  it('gets each key of its configuration on the wire, in the order of the schema', async () => {
    await send('821012345678', { options: { regional: { southKorea: { resellerCode: 4711 } } } });
    const asked = await north.first('821012345678');
    const { headers: head, body } = asked;
    expect(head).toMatchObject({
      authorization: `Basic ${Buffer.from('acme:secret').toString('base64')}`,
      soapaction: '"urn:submit"',
      'x-carrier-id': '31',
    });
    const xml = /<env:Body>(.*?)<\/env:Body>/s.exec(body)?.[1] ?? '';
    expect(
      xml
        .replace(/PT\d+S/, 'PT*S')
        .replace(/></g, '>\n<')
        .split('\n'),
    ).toEqual([
      `<mm7:SubmitReq xmlns:mm7="${NS}">`,
      '<mm7:MM7Version>5.6.0</mm7:MM7Version>',
      '<mm7:SenderIdentification>',
      '<mm7:VASPID>vasp-1</mm7:VASPID>',
      '<mm7:VASID>vas-2</mm7:VASID>',
      '<mm7:SenderAddress>',
      '<mm7:ShortCode>12345</mm7:ShortCode>',
      '</mm7:SenderAddress>',
      '</mm7:SenderIdentification>',
      '<mm7:Recipients>',
      '<mm7:To>',
      '<mm7:Number>+821012345678/TYPE=PLMN</mm7:Number>',
      '</mm7:To>',
      '</mm7:Recipients>',
      '<mm7:ServiceCode>gold</mm7:ServiceCode>',
      '<own:Callback xmlns:own="urn:example:kr">12345</own:Callback>',
      '<own:Reseller xmlns:own="urn:example:kr">4711</own:Reseller>',
      '<mm7:MessageClass>Informational</mm7:MessageClass>',
      '<mm7:ExpiryDate>PT*S</mm7:ExpiryDate>',
      '<mm7:DeliveryReport>true</mm7:DeliveryReport>',
      '<mm7:ReadReply>true</mm7:ReadReply>',
      '<mm7:Priority>High</mm7:Priority>',
      '<mm7:Subject>Hi &amp; bye</mm7:Subject>',
      '<mm7:ChargedParty>Sender</mm7:ChargedParty>',
      '<mm7:ChargedPartyID>party-3</mm7:ChargedPartyID>',
      '<mm7:DistributionIndicator>false</mm7:DistributionIndicator>',
      '<mm7:ContentClass>image-rich</mm7:ContentClass>',
      '<mm7:Content href="cid:content@postcard" allowAdaptations="false"/>',
      '</mm7:SubmitReq>',
    ]);
    expect(body).toContain('Content-Transfer-Encoding: base64');
  });

  it('says what becomes of a message by its own table of codes', async () => {
    north.says = ({ to }) => (to.endsWith('1') ? 4006 : north.submitted(to).length < 2 ? 2003 : 1000);
    const refused = await send('821000000001', { options: { regional: { southKorea: { resellerCode: 1 } } } });
    expect(await final(refused)).toMatchObject({ status: { id: 4 }, error: { id: 15019 } });
    await send('821000000002', { options: { regional: { southKorea: { resellerCode: 1 } } } });
    // Final by the specification; this carrier means "not now".
    await until(() => north.submitted('821000000002').length === 2, 'the second try');
    north.says = () => 1000;
  });

  it('that hangs up ends the message as not known where it is set up so, without a copy', async () => {
    north.says = () => 'hangs up';
    const id = await send('821000000003', { options: { regional: { southKorea: { resellerCode: 1 } } } });
    expect(await final(id)).toMatchObject({ status: { id: 29 } });
    north.says = () => 1000;
    expect(north.submitted('821000000003')).toHaveLength(1);
    expect(south.submitted('821000000003')).toHaveLength(0);
  });

  it('is asked with the reseller code where the destination needs one; without it the request is refused', async () => {
    const refused = await post(['821099999999']);
    expect(refused.status).toBe(400);
    const { violations } = (await refused.json()) as { violations: { property: string }[] };
    expect(violations.map(({ property }) => property)).toEqual([
      'messages[0].options.regional.southKorea.resellerCode',
    ]);
    await send('831000000001', { options: { regional: { southKorea: { resellerCode: 5 } } } });
    const asked = await south.first('831000000001');
    expect(asked.headers['x-reseller']).toBe('5');
    expect(asked.body).toContain('<mm7:Number>831000000001</mm7:Number>');
  });
});

describe('what a carrier tells', () => {
  it('finds its message in whatever form it writes the id, and the first final word holds', async () => {
    const id = await send('491700000010');
    await north.first('491700000010');
    const name = idOf('491700000010');
    expect(
      await call('DeliveryReportReq', `<MessageID>${name}</MessageID><MMStatus>Retrieved</MMStatus>`, 'north', 'no'),
    ).toBe(401);
    const swapped =
      '<Recipient><ShortCode>12345</ShortCode></Recipient><Sender><Number>+491700000010</Number></Sender>';
    expect(
      await call(
        'DeliveryReportReq',
        `${swapped}<MessageID>${name.toLowerCase()}@other</MessageID><MMStatus>Retrieved</MMStatus>`,
      ),
    ).toBe(200);
    expect(await call('DeliveryReportReq', `<MessageID>${name}</MessageID><MMStatus>Rejected</MMStatus>`)).toBe(200);
    expect(await final(id)).toMatchObject({ to: '491700000010', status: { id: 5 }, error: { id: 0 } });
    const story = await fetch(`${running.url}/mms/2/messages/${id}`, { headers: headersOf() });
    expect(JSON.stringify(await story.json())).toContain('Rejected');
    expect(told().filter((one) => one.messageId === id)).toHaveLength(1);
  });

  it('comes back as the answer to a message, to the endpoint of its number, with STOP and START', async () => {
    const admin = (path: string, body: object) =>
      fetch(`${running.url}/admin/1/${path}`, {
        method: 'POST',
        headers: headersOf(ADMIN),
        body: JSON.stringify(body),
      });
    expect((await admin('accounts/1/numbers', { number: '12345', url: `${customer.url}/own` })).status).toBe(200);
    const handset = '491700000020';
    const first = await send(handset);
    await north.first(handset);
    await call('DeliveryReportReq', `<MessageID>${idOf(handset)}</MessageID><MMStatus>Retrieved</MMStatus>`);
    await final(first);
    const deliver = (subject: string): Promise<number> =>
      call(
        'DeliverReq',
        `<LinkedID>${idOf(handset)}</LinkedID><Sender><Number>+${handset}/TYPE=PLMN</Number></Sender><Recipients><To><ShortCode>12345</ShortCode></To></Recipients><Priority>High</Priority><Subject>${subject}</Subject>`,
      );
    expect(await deliver('Stop!')).toBe(200);
    await until(() => customer.results('/own').length > 0, 'what the handset wrote');
    expect(customer.results('/own')).toMatchObject([{ from: handset, to: '12345', pairedMessageId: first }]);
    const refused = (await (await post([handset])).json()) as { messages: { status: { id: number } }[] };
    expect(refused.messages[0]?.status.id).toBe(10);
    const rejected = await until(() => told().find((one) => one.to === handset && one.status.id === 10), 'the refusal');
    expect(rejected.error.id).toBe(603);
    const listed = await fetch(`${running.url}/mms/1/optouts?destination=${handset}`, { headers: headersOf() });
    expect(JSON.stringify(await listed.json())).toContain('"12345"');
    expect(await deliver('start')).toBe(200);
    await send(handset);
    await until(() => north.submitted(handset).length === 2, 'the message after START');
    // An entry for all senders of the account says so in its status.
    await fetch(`${running.url}/mms/1/optouts`, {
      method: 'POST',
      headers: headersOf(),
      body: JSON.stringify({ optOuts: [{ destination: handset }] }),
    });
    const blocked = (await (await post([handset])).json()) as { messages: { status: { id: number } }[] };
    expect(blocked.messages[0]?.status.id).toBe(14);
  });
});

describe('a bulk', () => {
  it('that is cancelled is called back from the carrier, each message by the id that it gave', async () => {
    const [one, two] = ['491700000030', '491700000031'] as const;
    await post([one, two], {}, { schedule: { bulkId: 'sale' } });
    await Promise.all([north.first(one), north.first(two)]);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const answer = await fetch(`${running.url}/mms/2/bulks/status?bulkId=sale`, {
      method: 'PUT',
      headers: headersOf(),
      body: JSON.stringify({ status: 'CANCELED' }),
    });
    expect(answer.status).toBe(200);
    const canceled = await until(() => {
      const found = north.asked.filter(({ operation }) => operation === 'CancelReq');
      return found.length === 2 && found;
    }, 'two CancelReqs');
    const ids = canceled.map(({ body }) => /<mm7:MessageID>(.*?)<\/mm7:MessageID>/.exec(body)?.[1]);
    expect(ids.sort()).toEqual([one, two].map((to) => `&lt;${idOf(to)}@mmsc&gt;`).sort());
    expect(canceled[0]?.body).toContain('<mm7:VASPID>vasp-1</mm7:VASPID>');
    expect(canceled[0]?.headers.authorization).toMatch(/^Basic /);
  });
});

describe('what a carrier keeps the time of', () => {
  const iso = (ms: number): string => new Date(Math.floor(ms / 1000) * 1000).toISOString();
  const second = (ms: number): string => `${iso(ms).slice(0, 19)}Z`;

  it('is handed over early with its time, replaced when its bulk is moved, and called back when it is cancelled', async () => {
    const to = '491700000060';
    const sendAt = Date.now() + 1_800_000;
    await send(to, {}, { schedule: { bulkId: 'early', sendAt: iso(sendAt) } });
    const asked = await north.first(to);
    expect(asked.body).toContain(
      `<mm7:EarliestDeliveryTime>${second(sendAt)}</mm7:EarliestDeliveryTime><mm7:ExpiryDate>`,
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    const later = sendAt + 86_400_000;
    const moved = await fetch(`${running.url}/mms/2/bulks?bulkId=early`, {
      method: 'PUT',
      headers: headersOf(),
      body: JSON.stringify({ sendAt: iso(later) }),
    });
    expect(moved.status).toBe(200);
    const about = (operation: string): Promise<Operation> =>
      until(() => north.asked.find((one) => one.operation === operation && one.body.includes(idOf(to))), operation);
    const replaced = await about('ReplaceReq');
    expect(replaced.body).toContain(`<mm7:MessageID>&lt;${idOf(to)}@mmsc&gt;</mm7:MessageID>`);
    expect(replaced.body).toContain(`<mm7:EarliestDeliveryTime>${second(later)}</mm7:EarliestDeliveryTime>`);
    await fetch(`${running.url}/mms/2/bulks/status?bulkId=early`, {
      method: 'PUT',
      headers: headersOf(),
      body: JSON.stringify({ status: 'CANCELED' }),
    });
    await about('CancelReq');
    expect(north.submitted(to)).toHaveLength(1);
  });

  it('is not what goes by a speed limit, nor to a carrier that does not keep it', async () => {
    const sendAt = iso(Date.now() + 600_000);
    const limit = { sendingSpeedLimit: { amount: 10, timeUnit: 'MINUTE' } };
    await send('491700000061', {}, { schedule: { bulkId: 'paced', sendAt, ...limit } });
    await send(
      '831700000062',
      { options: { regional: { southKorea: { resellerCode: 5 } } } },
      { schedule: { sendAt } },
    );
    await send('491700000063');
    await north.first('491700000063');
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(north.submitted('491700000061')).toHaveLength(0);
    expect(south.submitted('831700000062')).toHaveLength(0);
  });
});

describe('a second carrier', () => {
  it('takes what the first refuses for a reason of its own, and there is one final report', async () => {
    north.says = () => 4007;
    const id = await send('491700000040');
    await south.first('491700000040');
    // South gives no reports: taken is the end.
    expect(await final(id)).toMatchObject({ status: { id: 2 } });
    expect(north.submitted('491700000040')).toHaveLength(1);
    north.says = () => 1000;
    expect(told().filter((one) => one.messageId === id)).toHaveLength(1);
  });

  it('is not asked where the first refuses the message itself', async () => {
    north.says = () => 2004;
    const id = await send('491700000041');
    expect(await final(id)).toMatchObject({ status: { id: 4 }, error: { id: 15013 } });
    expect(south.submitted('491700000041')).toHaveLength(0);
    north.says = () => 1000;
  });

  it('takes over where nobody is at the first', async () => {
    north.peer?.close();
    const id = await send('491700000042');
    expect(await final(id)).toMatchObject({ status: { id: 2 } });
    expect(south.submitted('491700000042')).toHaveLength(1);
  });
});
