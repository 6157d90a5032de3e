import { describe, expect, it } from 'vitest';
import { createIds } from './ids.ts';
import { createPartTokens, createPartUrls, INBOUND_URL_MS, inboundBody, inboxItem } from './inbound.ts';
import type { InboundRow } from './rows.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';
const ids = createIds(KEY);
const urls = createPartUrls('https://mms.example', KEY);
const at = Date.UTC(2016, 9, 6, 9, 28, 39, 220);

const row: InboundRow = {
  no: 7,
  account: 1,
  carrier: 'mmsc',
  channel: 'MMS',
  from: '41793026727',
  to: '25256',
  group: [],
  subject: null,
  parts: [
    { contentId: 'image', contentType: 'image/jpeg', size: 4, hash: 'aa', text: null },
    { contentId: 'content0', contentType: 'text/plain; charset=utf-8', size: 11, hash: null, text: 'Sample text' },
  ],
  receivedAt: at,
  paired: null,
  callbackData: null,
  entity: null,
  application: null,
};

describe('the inbound webhook (MO_MMS_2)', () => {
  it('has the published members in their order: bytes by URL, text inline', () => {
    const token = createPartTokens(KEY).print(7, 0, at + INBOUND_URL_MS);
    expect(inboundBody([{ ...row, callbackData: 'Some custom data' }], 3, ids, urls)).toBe(
      JSON.stringify({
        results: [
          {
            from: '41793026727',
            to: '25256',
            receivedAt: '2016-10-06T09:28:39.220+0000',
            messageId: ids.print('message', 7),
            callbackData: 'Some custom data',
            message: [
              { contentType: 'image/jpeg', url: `https://mms.example/mms/1/inbox/content/${token}` },
              { contentType: 'text/plain', value: 'Sample text' },
            ],
            price: { pricePerMessage: 0, currency: 'EUR' },
          },
        ],
        messageCount: 1,
        pendingMessageCount: 3,
      }),
    );
  });

  it('names the handset where the carrier told it', () => {
    const { results } = JSON.parse(inboundBody([{ ...row, userAgent: 'model-5g' }], 0, ids, urls));
    expect(results).toMatchObject([{ userAgent: 'model-5g' }]);
  });

  it('names the group, the message that it answers, and the platform', () => {
    const full: InboundRow = {
      ...row,
      group: [{ to: '25256' }, { cc: '41793026888' }],
      paired: { no: 5, key: null },
      entity: 'e',
      application: 'a',
    };
    const { results } = JSON.parse(inboundBody([full, { ...full, paired: { no: 5, key: 'order-5' } }], 0, ids, urls));
    expect(results[0]).toMatchObject({
      group: [{ to: '25256' }, { cc: '41793026888' }],
      pairedMessageId: ids.print('message', 5),
      entityId: 'e',
      applicationId: 'a',
    });
    expect(results[1].pairedMessageId).toBe('order-5');
  });
});

describe('the pulled item', () => {
  it('holds its parts in a text, as published', () => {
    const item = inboxItem({ ...row, parts: row.parts.slice(1) }, ids, urls) as Record<string, unknown>;
    expect(item).toMatchObject({
      to: '25256',
      from: '41793026727',
      mmsCount: 1,
      receivedAt: '2016-10-06T09:28:39.220+0000',
    });
    expect(item.message).toBe(
      '{"mms_parts":[{"origin":"text","contentType":"text/plain; charset=utf-8","contentId":"content0","value":"Sample text"}],"userAgent":null,"priority":null,"subject":null}',
    );
  });

  it('names the handset and the priority where the carrier told them', () => {
    const told: InboundRow = { ...row, subject: 's', priority: 'High', userAgent: 'model-5g' };
    const { message } = inboxItem(told, ids, urls) as { message: string };
    expect(JSON.parse(message)).toMatchObject({ userAgent: 'model-5g', priority: 'High', subject: 's' });
  });
});

describe('a token', () => {
  const tokens = createPartTokens(KEY);

  it('opens its part until its time', () => {
    for (const [no, part] of [
      [0, 0],
      [7, 99],
      [Number.MAX_SAFE_INTEGER, 65_535],
    ] as const) {
      const token = tokens.print(no, part, at);
      expect(token).toMatch(/^[\w-]{42}$/);
      expect(tokens.parse(token, at - 1)).toEqual({ no, part });
      expect(tokens.parse(token, at)).toBeNull();
    }
  });

  it('opens nothing when any of its characters is another, nor under another key', () => {
    const token = tokens.print(7, 1, at);
    for (let i = 0; i < token.length - 1; i++) {
      const other = token[i] === 'A' ? 'B' : 'A';
      expect(tokens.parse(token.slice(0, i) + other + token.slice(i + 1), 0)).toBeNull();
    }
    expect(createPartTokens('f'.repeat(32)).parse(token, 0)).toBeNull();
    for (const text of ['', token.slice(1), `${token}A`, `${token.slice(0, 41)}é`, '\0'.repeat(42)]) {
      expect(tokens.parse(text, 0)).toBeNull();
    }
  });
});
