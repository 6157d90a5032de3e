/** Short links and clicks through the customer's door, over HTTP. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLinkTokens } from '../../src/domain/links.ts';
import { StoreUnavailable } from '../../src/store/contract.ts';
import { type Given, type OpenDoor, OTHER_KEY, openDoor } from './door.ts';

const SHOP = 'https://shop.example/sale?from=mms&x=1';
const IPHONE =
  'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1';
const DAY = 86_400_000;

interface Sent {
  messageId: string;
  no: number;
  bulkId: string;
}

let door: OpenDoor;
let away = false;
let ahead = 0;
beforeEach(async () => {
  away = false;
  ahead = 0;
  door = await openDoor({
    now: () => Date.now() + ahead,
    wrap: (store) => {
      const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
        if (away) throw new StoreUnavailable('away');
        return work();
      };
      return {
        ...store,
        link: (no) => guarded(() => store.link(no)),
        clicked: (nos) => guarded(() => store.clicked(nos)),
        click: (clicks) => guarded(() => store.click(clicks)),
      };
    },
  });
});
afterEach(() => door.close());

async function send(
  tracking: object = {},
  more: { text?: string; to?: string[]; options?: object } = {},
): Promise<Sent[]> {
  const { text = `Sale: ${SHOP}`, to = ['441134960001'], options } = more;
  const { status, body } = await door.send({
    messages: [
      {
        sender: '441134960000',
        destinations: to.map((one) => ({ to: one })),
        content: { messageSegments: [{ type: 'TEXT', text }] },
        ...(options ? { options } : {}),
        webhooks: { callbackData: 'order 7' },
      },
    ],
    options: { tracking },
  });
  expect(status).toBe(200);
  const answer = JSON.parse(body) as { bulkId: string; messages: { messageId: string }[] };
  return answer.messages.map(({ messageId }) => ({
    messageId,
    bulkId: answer.bulkId,
    no: door.ids.parse('message', messageId) as number,
  }));
}

async function tokenOf(no: number, link = 0): Promise<string> {
  return createLinkTokens((await door.store.identity()).idKey).print(no, link);
}

async function open(path: string, init: RequestInit = {}): Promise<Given> {
  const headers = { 'user-agent': IPHONE, ...init.headers };
  const answer = await fetch(door.url + path, { redirect: 'manual', ...init, headers });
  return { status: answer.status, headers: answer.headers, body: await answer.text() };
}

/** The figures, once they have come to `count` clicks and looks. */
async function figures(query: string, count: number): Promise<Record<string, unknown>> {
  for (;;) {
    const { status, body } = await door.ask(`/mms/2/clicks?${query}`);
    expect(status).toBe(200);
    const found = JSON.parse(body) as { total: number; flagged: number };
    if (found.total + found.flagged >= count) return found as Record<string, unknown>;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('a short link', () => {
  it('leads to the URL of its message, and tells nobody', async () => {
    const [one] = await send();
    const { status, headers, body } = await open(`/l/${await tokenOf((one as Sent).no)}`);
    expect(status).toBe(302);
    expect(headers.get('location')).toBe(SHOP);
    expect(headers.get('referrer-policy')).toBe('no-referrer');
    expect(headers.get('x-robots-tag')).toContain('noindex');
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('content-length')).toBe('0');
    expect(body).toBe('');
  });

  it('is a URL wherever it came from: other scripts are encoded, and lines cannot be broken', async () => {
    const [one] = await send({}, { text: 'https://пример.рф/путь' });
    const { headers } = await open(`/l/${await tokenOf((one as Sent).no)}`);
    expect(headers.get('location')).toBe('https://xn--e1afmkfd.xn--p1ai/%D0%BF%D1%83%D1%82%D1%8C');
  });

  it('that nobody made is not found, whatever is wrong with it', async () => {
    const [one] = await send();
    const [plain] = await send({ shortenUrl: false });
    const wrong = [
      '0000000000A',
      'short',
      `${await tokenOf((one as Sent).no)}x`,
      '',
      'a/b',
      '%00',
      await tokenOf((one as Sent).no, 1),
      await tokenOf((plain as Sent).no),
      await tokenOf(999_999_999),
    ];
    const answers = await Promise.all(wrong.map((token) => open(`/l/${token}`)));
    expect(answers.map(({ status }) => status)).toEqual(wrong.map(() => 404));
    expect(new Set(answers.map(({ body }) => body)).size).toBe(1);
  });

  it('cannot be guessed for long, and those that are right go on', async () => {
    const [one] = await send();
    const token = await tokenOf((one as Sent).no);
    const statuses: number[] = [];
    for (let n = 0; n < 35; n++) statuses.push((await open(`/l/AAAAAAAAAA${n % 10}`)).status);
    expect(statuses.slice(0, 30)).toEqual(Array.from({ length: 30 }, () => 404));
    expect(statuses.slice(31)).toEqual([429, 429, 429, 429]);
    expect((await open('/l/AAAAAAAAAAA')).headers.get('retry-after')).toBe('60');
    expect((await open(`/l/${token}`)).status).toBe(302);
  });

  it('has an end', async () => {
    const [one] = await send();
    const path = `/l/${await tokenOf((one as Sent).no)}`;
    await door.submit(() => ({ kind: 'accepted', carrierMessageId: 'x' }));
    expect((await open(path)).status).toBe(302);
    ahead = 91 * DAY;
    expect((await open(path)).status).toBe(410);
    ahead = 89 * DAY;
    expect((await open(path)).status).toBe(302);
  });

  it('takes GET and HEAD and nothing else', async () => {
    const [one] = await send();
    const path = `/l/${await tokenOf((one as Sent).no)}`;
    const head = await open(path, { method: 'HEAD' });
    expect([head.status, head.headers.get('location')]).toEqual([302, SHOP]);
    const post = await open(path, { method: 'POST', body: 'x' });
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  });

  it("under a domain that is not the account's: its message is refused", async () => {
    const { body } = await door.send({
      messages: [
        {
          sender: '441134960000',
          destinations: [{ to: '441134960001' }],
          content: { messageSegments: [{ type: 'TEXT', text: SHOP }] },
        },
      ],
      options: { tracking: { customDomain: 'go.other.example' } },
    });
    expect(JSON.parse(body).messages[0].status).toMatchObject({ id: 100, groupName: 'REJECTED' });
  });
});

describe('while the store is away', () => {
  it('links that were opened before lead on, also for other messages of theirs, and their clicks come in later', async () => {
    const [a, b] = (await send({}, { to: ['441134960001', '441134960002'] })) as [Sent, Sent];
    expect((await open(`/l/${await tokenOf(a.no)}`)).status).toBe(302);
    const token = await tokenOf(b.no);
    away = true;
    const { status, headers } = await open(`/l/${token}`);
    expect([status, headers.get('location')]).toEqual([302, SHOP]);
    away = false;
    expect(await figures(`messageId=${b.messageId}`, 1)).toMatchObject({ total: 1, unique: 1 });
  });

  it('figures tell of redirects, misses and what waits', async () => {
    const [one] = await send();
    await open(`/l/${await tokenOf((one as Sent).no)}`);
    await open('/l/AAAAAAAAAAA');
    const { body } = await door.ask('/metrics');
    expect(body).toContain('postcard_links{figure="redirects"} 1');
    expect(body).toContain('postcard_links{figure="misses"} 1');
    expect(body).toContain('postcard_links{figure="dropped"} 0');
  });

  it('others are told to come back', async () => {
    const [one] = await send();
    const token = await tokenOf((one as Sent).no);
    away = true;
    const { status, headers } = await open(`/l/${token}`);
    expect(status).toBe(503);
    expect(headers.get('retry-after')).toBe('5');
  });
});

describe('clicks', () => {
  it('are counted, told to the tracking URL in the documented form, and shown in the story', async () => {
    const options = { platform: { entityId: 'e', applicationId: 'a' }, campaignReferenceId: 'summer' };
    const [one] = (await send({ trackingUrl: 'https://customer.example/clicks' }, { options })) as [Sent];
    const path = `/l/${await tokenOf(one.no)}`;
    const before = Date.now();
    await open(path);
    await open(path);
    await open(path, { headers: { 'user-agent': 'curl/8.9.1' } });
    await open(path, { method: 'HEAD' });
    await open(path, { headers: { 'sec-purpose': 'prefetch' } });
    const all = { total: 2, unique: 1, flagged: 3, links: [{ url: SHOP, total: 2, unique: 1, flagged: 3 }] };
    expect(await figures(`messageId=${one.messageId}`, 5)).toEqual(all);
    expect(await figures(`bulkId=${one.bulkId}`, 5)).toEqual(all);
    expect(await figures('campaignReferenceId=summer', 5)).toEqual(all);

    const { webhooks } = await door.store.webhookNext(10, 30_000);
    expect(webhooks.map(({ kind, endpoint }) => [kind, endpoint.url])).toEqual([
      ['click', 'https://customer.example/clicks'],
      ['click', 'https://customer.example/clicks'],
    ]);
    const body = JSON.parse(webhooks[0]?.body as string);
    expect(body).toEqual({
      notificationType: 'CLICKED',
      recipient: '441134960001',
      url: SHOP,
      sendDateTime: body.sendDateTime,
      messageId: one.messageId,
      bulkId: one.bulkId,
      callbackData: 'order 7',
      recipientInfo: { deviceType: 'Phone', os: 'iOS 18', deviceName: 'Apple' },
      applicationId: 'a',
      entityId: 'e',
    });
    expect(body.sendDateTime).toBeGreaterThanOrEqual(before);

    const story = JSON.parse((await door.ask(`/mms/2/messages/${one.messageId}`)).body);
    expect(
      story.clicks.map(({ url, flag, device }: { url: string; flag: string; device: string }) => [url, flag, device]),
    ).toEqual([
      [SHOP, null, 'Phone, iOS 18, Apple'],
      [SHOP, null, 'Phone, iOS 18, Apple'],
      [SHOP, 'BOT', 'curl/8.9.1'],
      [SHOP, 'HEAD', IPHONE.slice(0, 120)],
      [SHOP, 'PREFETCH', IPHONE.slice(0, 120)],
    ]);
  });

  it('are not looked at where the customer does not want it', async () => {
    const [one] = (await send({ trackClicks: false })) as [Sent];
    const [other] = (await send()) as [Sent];
    expect((await open(`/l/${await tokenOf(one.no)}`)).status).toBe(302);
    await open(`/l/${await tokenOf(other.no)}`);
    await figures(`messageId=${other.messageId}`, 1);
    expect(await figures(`messageId=${one.messageId}`, 0)).toMatchObject({ total: 0, flagged: 0 });
  });

  it('in flight when the server stops are written', async () => {
    const [one] = (await send()) as [Sent];
    await open(`/l/${await tokenOf(one.no)}`);
    const counted = new Promise((resolve) => {
      const { click } = door.store;
      door.store.click = async (clicks) => {
        await click(clicks);
        resolve(clicks.length);
      };
    });
    await Promise.all([door.close(), counted]);
    door = await openDoor();
    expect(await counted).toBe(1);
  });

  it('in flight when the server stops are tried again while the store is away for a moment', async () => {
    const [one] = (await send()) as [Sent];
    await open(`/l/${await tokenOf(one.no)}`);
    const { click } = door.store;
    let tries = 0;
    let written = 0;
    door.store.click = async (clicks) => {
      if (++tries < 3) throw new StoreUnavailable('away');
      await click(clicks);
      written += clicks.length;
    };
    await door.close();
    door = await openDoor();
    expect([tries, written]).toEqual([3, 1]);
  });

  it.each<[string, number, string]>([
    ['', 400, 'exactly one of'],
    ['messageId=a&bulkId=b', 400, 'exactly one of'],
    ['messageId=unknown', 404, 'Not found'],
    ['bulkId=unknown', 404, 'Not found'],
    ['campaignReferenceId=unknown', 404, 'Not found'],
  ])('asked for with %j: %d', async (query, status, words) => {
    const given = await door.ask(`/mms/2/clicks?${query}`);
    expect(given.status).toBe(status);
    expect(given.body).toContain(words);
  });

  it('are for their account only', async () => {
    const [one] = (await send()) as [Sent];
    const headers = { authorization: `App ${OTHER_KEY}` };
    expect((await door.ask(`/mms/2/clicks?messageId=${one.messageId}`, { headers })).status).toBe(404);
    expect((await door.ask('/mms/2/clicks?messageId=x', { headers: { authorization: 'App no' } })).status).toBe(401);
  });
});
