import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { createShortener } from './links.ts';
import type { Destination, MessageRequest, SendRequest, Spec, Tracking } from './message.ts';
import { type NumberingContext, numberRequest, numbersNeeded, refusalWords } from './numbering.ts';
import { messageCountOf } from './report.ts';
import { createRouting, type Routing } from './routing.ts';
import { PACE_SLACK_MS } from './schedule.ts';

const NOW = Date.UTC(2026, 0, 5, 12);
const HOUR = 3_600_000;

/** By the country code's first digit: 4.. lane 1, 3.. lane 2, 1.. no route. */
const laneOf = (to: string): number | null => ({ 4: 1, 3: 2 })[to[0] as '4' | '3'] ?? null;
const byPrefix: Routing = {
  laneFor: laneOf,
  laneForAll: (members) => {
    const lanes = new Set(members.map(laneOf));
    return lanes.size === 1 ? ([...lanes][0] ?? null) : null;
  },
};

function context(more: Partial<NumberingContext> = {}): NumberingContext {
  return { account: 5, first: 100, now: NOW, routing: byPrefix, idem: null, ...more };
}

function message(destinations: Destination[], more: Partial<MessageRequest> = {}): MessageRequest {
  return { sender: 'Sender', destinations, content: { messageSegments: [{ type: 'TEXT', text: 'hi' }] }, ...more };
}

function one(more: Partial<MessageRequest>, options?: SendRequest['options']) {
  const request: SendRequest = { messages: [message([{ to: '491710000001' }], more)] };
  if (options) request.options = options;
  return numberRequest(request, context());
}

const DE = '491710000001';
const DE2 = '+491710000002';
const FR = '33612345678';
const US = '12025550123';

describe('the numbers of a request', () => {
  it('are the request, its specs, then the messages: runs first, refused ones last', () => {
    const request: SendRequest = {
      messages: [
        message([{ to: 'nonsense' }, { to: DE }, { to: FR }, { to: DE2, messageId: 'mine' }, { to: US }]),
        message([{ to: FR, messageId: '' }]),
      ],
    };
    expect(numbersNeeded(request)).toBe(9);
    const { accept, entries } = numberRequest(request, context());
    expect(entries).toEqual([
      { no: 106, destination: 'nonsense', key: null, refused: 52 },
      { no: 103, destination: DE, key: null, refused: 0 },
      { no: 105, destination: FR, key: null, refused: 0 },
      { no: 104, destination: DE2, key: 'mine', refused: 0 },
      { no: 107, destination: US, key: null, refused: 19 },
      { no: 108, destination: FR, key: null, refused: 0 },
    ]);
    expect(accept.first).toBe(100);
    expect(accept.specs.map(({ first, end }) => [first, end])).toEqual([
      [103, 108],
      [108, 109],
    ]);
    expect(accept.runs.map(({ first, end, spec, lane, group }) => [first, end, spec, lane, group])).toEqual([
      [103, 105, 101, 1, false],
      [105, 106, 101, 2, false],
      [108, 109, 102, 2, false],
    ]);
    // Digits for those that go, as written for those that do not.
    expect(accept.to).toEqual([DE, '491710000002', FR, 'nonsense', US, FR]);
    expect(accept.refused).toEqual([
      [106, 52],
      [107, 19],
    ]);
    expect(accept.keys).toEqual([[104, 'mine']]);
  });

  it.each<[string, string, number]>([
    ['blank', '  ', 51],
    ['empty', '', 51],
    ['national', '0171234567', 8],
    ['words', 'Grandma', 52],
    ['unroutable', US, 19],
  ])('go to a refused destination too (%s)', (_, to, status) => {
    const { accept, entries } = numberRequest({ messages: [message([{ to, messageId: 'k' }])] }, context());
    expect(entries).toEqual([{ no: 102, destination: to, key: 'k', refused: status }]);
    expect(accept).toMatchObject({ runs: [], to: [to], refused: [[102, status]], keys: [[102, 'k']] });
  });

  it('refuses all destinations of a bad sender with 11, before their own faults', () => {
    const request = {
      messages: [message([{ to: DE }, { to: '' }, { group: [{ to: FR }] }], { sender: 'far too long a sender' })],
    };
    const { accept, entries } = numberRequest(request, context());
    expect(entries.map((entry) => entry.refused)).toEqual([11, 11, 11]);
    expect(accept.runs).toEqual([]);
    expect(accept.specs[0]?.sender).toBe('far too long a sender');
  });

  it('refuses everything where there is no carrier', () => {
    const { entries } = numberRequest({ messages: [message([{ to: DE }])] }, context({ routing: createRouting([]) }));
    expect(entries[0]?.refused).toBe(19);
  });
});

describe('a group', () => {
  const group = (...tos: string[]): Destination => ({ group: tos.map((to, i) => ({ to, messageId: `g${i}` })) });

  it('is one run of its own, so one submission, beside the singles of its lane', () => {
    const { accept, entries, split } = numberRequest(
      { messages: [message([{ to: DE }, group(DE2, DE), { to: DE2 }, group(FR)])] },
      context(),
    );
    expect(accept.runs.map(({ first, end, lane, group }) => [first, end, lane, group])).toEqual([
      [102, 104, 1, false],
      [104, 106, 1, true],
      [106, 107, 2, true],
    ]);
    expect(entries.map((entry) => [entry.destination, entry.no])).toEqual([
      [DE, 102],
      [DE2, 104],
      [DE, 105],
      [DE2, 103],
      [FR, 106],
    ]);
    expect(split).toBe(0);
  });

  it('goes as singles, and says so, where no one lane takes all members', () => {
    const { accept, split } = numberRequest({ messages: [message([group(DE, FR, DE2)])] }, context());
    expect(accept.runs.map(({ first, end, lane, group }) => [first, end, lane, group])).toEqual([
      [102, 104, 1, false],
      [104, 105, 2, false],
    ]);
    expect(split).toBe(1);
  });

  it('goes on without the members that are refused', () => {
    const { accept, entries, split } = numberRequest({ messages: [message([group(DE, 'x', US, DE2)])] }, context());
    expect(accept.runs.map(({ first, end, group }) => [first, end, group])).toEqual([[102, 104, true]]);
    expect(entries.map((entry) => entry.refused)).toEqual([0, 52, 19, 0]);
    expect(entries.map((entry) => entry.no)).toEqual([102, 104, 105, 103]);
    expect(split).toBe(0);
  });

  it('makes no run when all its members are refused', () => {
    expect(numberRequest({ messages: [message([group('x', '')])] }, context()).accept.runs).toEqual([]);
  });
});

describe('short links', () => {
  const DAY = 24 * HOUR;
  const linked = (tracking?: Tracking, more: Partial<MessageRequest> = {}): SendRequest => {
    const content: MessageRequest['content'] = {
      messageSegments: [{ type: 'TEXT', text: 'https://a.example https://b.example' }],
    };
    const request: SendRequest = { messages: [message([{ to: DE }, { to: FR }], { content, ...more })] };
    if (tracking) request.options = { tracking };
    return request;
  };
  const urls = ['https://a.example', 'https://b.example'];

  it('are put down once for all destinations, with where clicks go and how long they work', () => {
    const webhooks = { callbackData: 'cb' };
    const { accept } = numberRequest(linked({ trackingUrl: 'https://c.example/' }, { webhooks }), context());
    const [spec] = accept.specs;
    const tracked = { urls, clicks: true, url: 'https://c.example/', callbackData: 'cb', keepMs: 90 * DAY };
    expect(spec?.tracked).toEqual(tracked);
    expect((JSON.parse(spec?.body as string) as Spec).links).toEqual(urls);
  });

  it('count for an SMS as it leaves: with short links in it, where that makes a difference', () => {
    const shortener = createShortener('https://go.example', '00'.repeat(16));
    const specOf = (text: string, tracking?: Tracking): Spec => {
      const request = linked(tracking, { options: { smsFailover: { text } } });
      return JSON.parse(numberRequest(request, context({ shortener })).accept.specs[0]?.body as string) as Spec;
    };
    const long = `Sale! https://shop.example/${'a'.repeat(150)}`;
    expect(specOf(long, {}).smsSegments).toBe(1);
    expect(messageCountOf({ leg: 1 }, specOf(long, {}))).toBe(1);
    // As it stands where links are not shortened, where that says the same, and of an MMS.
    expect(specOf(long, { shortenUrl: false }).smsSegments).toBeUndefined();
    expect(messageCountOf({ leg: 1 }, specOf(long))).toBe(2);
    expect(specOf('Sale! https://shop.example/a', {}).smsSegments).toBeUndefined();
    expect(messageCountOf({ leg: 0 }, specOf(long, {}))).toBe(1);
    // A link whose address is no GSM text takes the whole text with it.
    const cyrillic = `${'a'.repeat(60)} https://shop.example/${'ж'.repeat(20)}`;
    expect(messageCountOf({ leg: 1 }, specOf(cyrillic))).toBe(2);
    expect(messageCountOf({ leg: 1 }, specOf(cyrillic, {}))).toBe(1);
  });

  it('only lead on where clicks are not wanted, and for as long as the operator says', () => {
    const { accept } = numberRequest(linked({ trackClicks: false }), context({ linkKeepMs: DAY }));
    expect(accept.specs[0]?.tracked).toEqual({ urls, clicks: false, url: null, callbackData: null, keepMs: DAY });
  });

  it.each<[string, Tracking | undefined]>([
    ['without tracking', undefined],
    ['where shortenUrl is false, whatever else is said', { shortenUrl: false, customDomain: 'not.ours.example' }],
  ])('are none %s', (_, tracking) => {
    const { accept, entries } = numberRequest(linked(tracking), context());
    expect(accept.specs[0]?.tracked).toBeUndefined();
    expect((JSON.parse(accept.specs[0]?.body as string) as Spec).links).toBeUndefined();
    expect(entries.map(({ refused }) => refused)).toEqual([0, 0]);
  });

  it("under a domain that is not the account's refuse their messages with 100", () => {
    const hasDomain = (name: string): boolean => name === 'go.shop.example';
    const of = (customDomain: string) =>
      numberRequest(linked({ customDomain }), context({ hasDomain })).entries.map(({ refused }) => refused);
    expect(of('go.shop.example')).toEqual([0, 0]);
    expect(of('GO.shop.example')).toEqual([0, 0]);
    expect(of('')).toEqual([0, 0]);
    expect(of('other.example')).toEqual([100, 100]);
    expect(numberRequest(linked({ customDomain: 'x' }), context()).accept.runs).toEqual([]);
  });
});

describe('what a request says once', () => {
  it('keeps every accepted field in the body of its spec, but for the destinations', () => {
    const full: MessageRequest = {
      sender: '441134960000',
      destinations: [{ to: DE }],
      content: { title: 'T', messageSegments: [{ type: 'SMIL', smil: '<smil/>', contentType: 'application/smil' }] },
      options: {
        platform: { entityId: 'e', applicationId: 'a' },
        validityPeriod: { amount: 2, timeUnit: 'HOURS' },
        deliveryTimeWindow: { days: ['MONDAY'], from: { hour: 9 }, to: { hour: 17, minute: 30 } },
        smsFailover: { text: 'sms', validityPeriod: { amount: 1 } },
        regional: { southKorea: { resellerCode: 7 } },
        campaignReferenceId: 'c',
      },
      webhooks: { delivery: { url: 'https://x.example/', intermediateReport: true }, callbackData: 'cb' },
    };
    const tracking = { shortenUrl: true, customDomain: 'd.example' };
    const { accept } = numberRequest(
      { messages: [full], options: { tracking } },
      context({ hasDomain: (name) => name === 'd.example' }),
    );
    const [spec] = accept.specs;
    const { destinations: _, ...rest } = full;
    expect(JSON.parse(spec?.body as string) as Spec).toEqual({ ...rest, tracking });
    expect(spec).toMatchObject({
      sender: '441134960000',
      campaign: 'c',
      entity: 'e',
      application: 'a',
      endpoint: { url: 'https://x.example/', contentType: 'application/json' },
      intermediate: true,
      notify: true,
    });
    expect(accept.runs[0]).toMatchObject({
      validityMs: 2 * HOUR,
      window: { days: 1, from: 540, to: 1050 },
    });
  });

  it.each<[string, MessageRequest['webhooks'], { url: string; contentType: string } | null, boolean]>([
    ['none', undefined, null, true],
    ['no url', { delivery: {} }, null, true],
    ['not wanted', { delivery: { url: 'https://x/', notify: false } }, null, false],
    [
      'plain',
      { delivery: { url: 'https://x/', notify: true } },
      { url: 'https://x/', contentType: 'application/json' },
      true,
    ],
    [
      'XML, said beside delivery',
      { delivery: { url: 'https://x/' }, contentType: 'application/xml' },
      { url: 'https://x/', contentType: 'application/xml' },
      true,
    ],
    [
      'XML, said inside delivery',
      { delivery: { url: 'https://x/', contentType: 'application/xml' } },
      { url: 'https://x/', contentType: 'application/xml' },
      true,
    ],
    [
      'both said: the place it belongs to counts',
      { delivery: { url: 'https://x/', contentType: 'application/xml' }, contentType: 'application/json' },
      { url: 'https://x/', contentType: 'application/json' },
      true,
    ],
  ])('reports go where they are wanted: %s', (_, webhooks, endpoint, notify) => {
    expect(one(webhooks ? { webhooks } : {}).accept.specs[0]).toMatchObject({ endpoint, notify });
  });

  it('names uploads and links by the index of their segment', () => {
    const { accept } = one({
      content: {
        messageSegments: [
          { type: 'TEXT', text: 't' },
          { type: 'UPLOADED_REFERENCE', uploadedContentId: 'up' },
          { type: 'LINK', contentUrl: 'https://x/a' },
          { type: 'LINK', contentUrl: 'https://x/b', contentType: 'image/png' },
        ],
      },
    });
    expect(accept.specs[0]?.uploads).toEqual([{ segment: 1, id: 'up' }]);
    expect(accept.specs[0]?.links).toEqual([
      { segment: 2, url: 'https://x/a', contentType: null },
      { segment: 3, url: 'https://x/b', contentType: 'image/png' },
    ]);
  });

  it.each<[string, string | undefined, number | null]>([
    ['absent', undefined, null],
    ['long past', '2026-01-05T11:44:59Z', null],
    ['past by no more than clocks differ: the store decides', '2026-01-05T11:59:59Z', NOW - 1000],
    ['now', '2026-01-05T12:00:00.000Z', NOW],
    ['ahead, in another zone', '2026-01-05T14:00:00.500+0100', NOW + HOUR + 500],
  ])('takes a sendAt that is %s', (_, sendAt, expected) => {
    expect(one({}, sendAt === undefined ? {} : { schedule: { sendAt } }).accept.sendAt).toBe(expected);
  });

  it('takes bulkId and speed limit as given, and tells "not given" from "none"', () => {
    expect(one({}).accept).toMatchObject({ bulkId: null, intervalUs: null });
    expect(one({}, { schedule: { bulkId: '' } }).accept.bulkId).toBeNull();
    const { accept } = one({}, { schedule: { bulkId: 'b', sendingSpeedLimit: { amount: 60 } } });
    expect(accept).toMatchObject({ bulkId: 'b', intervalUs: Math.ceil(((60_000 + PACE_SLACK_MS) * 1000) / 60) });
  });

  it('passes account and Idempotency-Key through', () => {
    const idem = { key: 'k', hash: 'h' };
    const { accept } = numberRequest({ messages: [message([{ to: DE }])] }, context({ idem, account: 9 }));
    expect(accept).toMatchObject({ idem, account: 9 });
  });
});

describe('numbering any request', () => {
  const to = fc.oneof(
    fc.constantFrom(DE, DE2, FR, US, '', '0171234567', 'x', '__proto__'),
    fc.integer({ min: 30, max: 49 }).map((code) => `${code}1234567890`),
  );
  const single = fc.record(
    { to, messageId: fc.option(fc.string({ maxLength: 5 }), { nil: undefined }) },
    { requiredKeys: ['to'] },
  );
  const destination = fc.oneof(
    { weight: 3, arbitrary: single },
    { weight: 1, arbitrary: fc.record({ group: fc.array(single, { minLength: 1, maxLength: 6 }) }) },
  ) as fc.Arbitrary<Destination>;
  const request = fc.record({
    messages: fc.array(
      fc
        .tuple(fc.array(destination, { minLength: 1, maxLength: 8 }), fc.constantFrom('Sender', '4911', '!'))
        .map(([destinations, sender]) => message(destinations, { sender })),
      { minLength: 1, maxLength: 5 },
    ),
  }) as fc.Arbitrary<SendRequest>;
  const flat = (sent: SendRequest) =>
    sent.messages.flatMap((item) => item.destinations.flatMap((one) => ('group' in one ? one.group : [one])));

  it('uses exactly the numbers that it asks for, each once', () => {
    void fc.assert(
      fc.property(request, fc.integer({ min: 1, max: 2 ** 50 }), (sent, first) => {
        const { accept, entries } = numberRequest(sent, context({ first }));
        const used = [first, ...sent.messages.map((_, i) => first + 1 + i), ...entries.map((entry) => entry.no)];
        const wanted = Array.from({ length: numbersNeeded(sent) }, (_, i) => first + i);
        expect(used.sort((a, b) => a - b)).toEqual(wanted);
        expect(accept.to).toHaveLength(entries.length);
      }),
    );
  });

  it('answers every destination once, in request order, as the customer wrote it', () => {
    void fc.assert(
      fc.property(request, (sent) => {
        const { entries } = numberRequest(sent, context());
        expect(entries.map((entry) => entry.destination)).toEqual(flat(sent).map((one) => one.to));
        expect(entries.map((entry) => entry.key)).toEqual(flat(sent).map((one) => one.messageId || null));
      }),
    );
  });

  it('puts every number into one run or among the refused, inside its spec, with its own destination', () => {
    void fc.assert(
      fc.property(request, (sent) => {
        const { accept, entries } = numberRequest(sent, context());
        const base = accept.specs[0]?.first as number;
        const refused = new Map(accept.refused);
        const specs = accept.specs.map((spec, i) => ({ no: accept.first + 1 + i, ...spec }));
        // The ranges of specs follow one another without a gap.
        for (const [i, spec] of specs.entries()) expect(spec.first).toBe(i === 0 ? base : specs[i - 1]?.end);
        for (const entry of entries) {
          const runs = accept.runs.filter((run) => run.first <= entry.no && entry.no < run.end);
          const spec = specs.find((one) => one.first <= entry.no && entry.no < one.end);
          expect(spec).toBeDefined();
          const address = accept.to[entry.no - base];
          if (entry.refused === 0) {
            expect(runs).toHaveLength(1);
            expect(runs[0]?.spec).toBe(spec?.no);
            expect(byPrefix.laneFor(address as string)).toBe(runs[0]?.lane);
            expect(address).toBe(entry.destination.replace(/^\+/, ''));
          } else {
            expect(runs).toHaveLength(0);
            expect(address).toBe(entry.destination);
          }
          expect(refused.get(entry.no) ?? 0).toBe(entry.refused);
        }
        expect(accept.keys).toHaveLength(entries.filter((entry) => entry.key !== null).length);
        for (const [no, key] of accept.keys) expect(entries.find((entry) => entry.no === no)?.key).toBe(key);
      }),
    );
  });

  it('makes at most one run of singles a lane, and keeps a group of one lane together', () => {
    void fc.assert(
      fc.property(request, (sent) => {
        const { accept, entries, split } = numberRequest(sent, context());
        for (const [i] of accept.specs.entries()) {
          const singles = accept.runs.filter((run) => run.spec === accept.first + 1 + i && !run.group);
          expect(new Set(singles.map((run) => run.lane)).size).toBe(singles.length);
        }
        let at = 0;
        let apart = 0;
        for (const one of sent.messages.flatMap((item) => item.destinations)) {
          const count = 'group' in one ? one.group.length : 1;
          const mine = entries.slice(at, at + count).filter((entry) => entry.refused === 0);
          at += count;
          if (!('group' in one) || mine.length === 0) continue;
          const runs = new Set(
            mine.map((entry) => accept.runs.find((run) => run.first <= entry.no && entry.no < run.end)),
          );
          const lanes = new Set([...runs].map((run) => run?.lane));
          if (lanes.size > 1) apart++;
          else {
            const [run] = runs;
            expect(runs.size).toBe(1);
            expect(run).toMatchObject({ group: true, first: mine[0]?.no, end: (mine.at(-1)?.no as number) + 1 });
          }
        }
        expect(split).toBe(apart);
      }),
    );
  });
});

describe('refusalWords', () => {
  it('say why at the door, where there is more to say than the status', () => {
    expect(refusalWords(100)).toBe("refused at the door: tracking.customDomain is not one of the account's domains");
    expect(refusalWords(52)).toBe('refused at the door: the destination is not a telephone number');
    expect(refusalWords(23)).toBe('refused at the door');
  });
});

describe('ways', () => {
  const HOURS = 3_600_000;
  const smsFailover = { text: 'instead' };
  const routing: Routing = {
    ...byPrefix,
    smsLaneFor: (to, about) => (about?.sender === 'nobody' ? null : (laneOf(to) ?? 0) + 10),
    alternatives: (to, lane) => (lane === 1 ? [3] : lane === 11 && to === DE ? [13] : []),
    alternativesForAll: (_, lane) => (lane === 1 ? [4] : []),
  };
  const number = (
    destinations: Destination[],
    options: MessageRequest['options'] = {},
    more: Partial<NumberingContext> = {},
  ) =>
    numberRequest({ messages: [message(destinations, { options })] }, context({ routing, ...more })).accept.runs.map(
      ({ first, end, lane, group, ways }) => ({ size: end - first, lane, group, ways }),
    );

  it('are none where no SMS is asked for and no second carrier is there', () => {
    expect(number([{ to: FR }])).toEqual([{ size: 1, lane: 2, group: false, ways: undefined }]);
  });

  it('are those of the SMS and the second choices, and runs share them', () => {
    const validity = { validityPeriod: { amount: 30 } };
    expect(
      number([{ to: DE2 }, { to: DE }, { to: '491710000003' }], { smsFailover: { ...smsFailover, ...validity } }),
    ).toEqual([
      { size: 2, lane: 1, group: false, ways: { alts: [3], sms: { lane: 11, validityMs: HOURS / 2 } } },
      { size: 1, lane: 1, group: false, ways: { alts: [3], sms: { lane: 11, alts: [13], validityMs: HOURS / 2 } } },
    ]);
  });

  it('tell that there is no route for the SMS, by the sender that it has; one that is none is refused at the door', () => {
    const sms = { lane: null, validityMs: 48 * HOURS };
    const bad = { ...smsFailover, sender: 'Comp@ny' };
    const { entries } = numberRequest(
      { messages: [message([{ to: FR }], { options: { smsFailover: bad } })] },
      context(),
    );
    expect(entries.map(({ refused }) => refused)).toEqual([11]);
    const own = { ...smsFailover, sender: 'nobody' };
    expect(number([{ to: FR }], { smsFailover: own })).toEqual([{ size: 1, lane: 2, group: false, ways: { sms } }]);
    const none = numberRequest({ messages: [message([{ to: FR }], { options: { smsFailover } })] }, context());
    expect(none.accept.runs[0]?.ways).toEqual({ sms });
  });

  it('are all there is where no carrier takes the MMS: it waits where its SMS goes, for itself also in a group', () => {
    const routing: Routing = { ...byPrefix, smsLaneFor: (to) => (to === US ? 11 : null) };
    const asked = { options: { smsFailover } };
    const numbered = (destinations: Destination[], more: Partial<MessageRequest> = asked) =>
      numberRequest({ messages: [message(destinations, more)] }, context({ routing }));
    const validity = 48 * HOURS;
    const alone = numbered([{ to: US }]);
    expect(alone.entries).toMatchObject([{ refused: 0 }]);
    expect(alone.accept.runs).toMatchObject([
      { lane: 11, group: false, ways: { smsOnly: true, sms: { lane: 11, validityMs: validity } } },
    ]);
    expect(alone.accept.runs[0]?.ways).not.toHaveProperty('alts');
    const group = numbered([{ group: [{ to: US }, { to: DE }, { to: DE2 }] }]);
    expect(group.split).toBe(0);
    expect(group.accept.runs.map(({ first, end, lane, group: one }) => [end - first, lane, one])).toEqual([
      [1, 11, false],
      [2, 1, true],
    ]);
    // Nobody asked for an SMS, or nobody takes that one either.
    expect(numbered([{ to: US }], {}).entries).toMatchObject([{ refused: 19 }]);
    expect(numbered([{ to: '12025550124' }]).entries).toMatchObject([{ refused: 19 }]);
  });

  it('of a group are one where its members share them, else one each', () => {
    const [alike] = number([{ group: [{ to: DE2 }, { to: '491710000003' }] }], { smsFailover });
    expect(alike).toEqual({
      size: 2,
      lane: 1,
      group: true,
      ways: { alts: [4], sms: { lane: 11, validityMs: 48 * HOURS } },
    });
    const [apart] = number([{ group: [{ to: DE2 }, { to: DE }] }], { smsFailover });
    expect(apart?.ways?.smsEach?.map(({ alts }) => alts)).toEqual([undefined, [13]]);
  });

  it('reach further where the operator or the account says so', () => {
    const sms = { lane: 12, validityMs: 48 * HOURS, afterUnknown: true };
    expect(number([{ to: FR }], { smsFailover }, { failoverAfterUnknown: true })[0]?.ways).toEqual({ sms });
    const byAll = { ...routing, failoverAfterUnknown: true };
    expect(number([{ to: FR }], { smsFailover }, { routing: byAll })[0]?.ways).toEqual({ sms });
  });
});
