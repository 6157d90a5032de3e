/** The golden pairs against the bare validator, and what no single pair can show: order, caps, bounds. */
import { describe, expect, it } from 'vitest';
import { apiError, malformed } from '../../src/api/errors.ts';
import { parseJson } from '../../src/api/json.ts';
import { createSendValidator, DEFAULT_LIMITS, type Validation } from '../../src/api/schema.ts';
import { sendSuite } from './send.suite.ts';
import { full, URL as NOT_A_URL, NOW } from './send.table.ts';

const validate = createSendValidator({
  limits: DEFAULT_LIMITS,
  checkCallout: (url) => {
    const parsed = URL.parse(url);
    return parsed !== null && /^https?:$/.test(parsed.protocol) ? null : NOT_A_URL;
  },
});

sendSuite({
  name: 'the validator',
  whole: false,
  send: async (body) => {
    const parsed = parseJson(typeof body === 'string' ? Buffer.from(body) : body);
    if (!parsed.ok) return malformed(parsed.fault);
    const result = validate(parsed.value, NOW);
    return result.ok ? { status: 200, body: '' } : apiError('E400', { violations: result.violations });
  },
});

function judge(body: unknown): Validation {
  const parsed = parseJson(Buffer.from(JSON.stringify(body)));
  if (!parsed.ok) throw new Error(parsed.fault);
  return validate(parsed.value, NOW);
}

function violations(body: unknown): [string, string][] {
  const result = judge(body);
  return result.ok ? [] : result.violations.map(({ property, violation }) => [property, violation]);
}

const message = (destinations: unknown[]) => ({
  sender: 'Postcard',
  destinations,
  content: { messageSegments: [{ type: 'TEXT', text: 'x' }] },
});

describe('the validator', () => {
  it('gives the request as it was sent, without unknown members', () => {
    expect(judge(full)).toEqual({ ok: true, request: full });
    expect(judge({ ...full, more: 1 })).toEqual({ ok: true, request: full });
  });

  it('reads null in an optional member as absent', () => {
    const body = { messages: [{ ...message([{ to: '1', messageId: null }]), options: null, webhooks: null }] };
    expect(judge(body)).toEqual({ ok: true, request: { messages: [message([{ to: '1' }])] } });
  });

  it('lists all violations in the order of the request, missing members after the present ones of their object', () => {
    const body = {
      options: { schedule: { sendAt: 'x' } },
      messages: [
        {
          content: { messageSegments: [{ text: 5, type: 'TEXT' }], title: 5 },
          sender: '',
          destinations: [{ to: 1 }, {}],
        },
        {},
      ],
    };
    expect(violations(body).map(([property]) => property)).toEqual([
      'options.schedule.sendAt',
      'messages[0].content.messageSegments[0].text',
      'messages[0].content.title',
      'messages[0].sender',
      'messages[0].destinations[0].to',
      'messages[0].destinations[1].to',
      'messages[1].sender',
      'messages[1].destinations',
      'messages[1].content',
    ]);
  });

  it('lists at most 100 violations, the first ones', () => {
    const found = violations({ messages: [message(Array.from({ length: 500 }, () => ({})))] });
    expect(found).toHaveLength(100);
    expect(found[0]).toEqual(['messages[0].destinations[0].to', 'must not be null']);
    expect(found[99]).toEqual(['messages[0].destinations[99].to', 'must not be null']);
  });

  it('tells two faults of one text', () => {
    expect(violations({ messages: [{ ...message([{ to: '1' }]), sender: '\0' }] })).toEqual([
      ['messages[0].sender', 'must not contain the character U+0000'],
    ]);
    const content = { title: `\0${'x'.repeat(66)}`, messageSegments: [{ type: 'TEXT', text: 'x' }] };
    expect(violations({ messages: [{ ...message([{ to: '1' }]), content }] })).toEqual([
      ['messages[0].content.title', 'size must be between 0 and 66'],
      ['messages[0].content.title', 'must not contain the character U+0000'],
    ]);
  });

  it('takes 1 000 messages and no more', () => {
    const messages = (count: number) => ({ messages: Array.from({ length: count }, () => message([{ to: '1' }])) });
    expect(violations(messages(1000))).toEqual([]);
    expect(violations(messages(1001))).toEqual([['messages', 'size must be between 1 and 1000']]);
  });

  it('takes 10 000 destinations in a request and no more, group members counted', () => {
    const singles = (count: number) => Array.from({ length: count }, () => ({ to: '1' }));
    expect(violations({ messages: [message(singles(10_000))] })).toEqual([]);
    expect(violations({ messages: [message(singles(10_001))] })).toEqual([
      ['messages[0].destinations', 'size must be between 1 and 10000'],
    ]);
    const groups = (count: number) => Array.from({ length: count }, () => ({ group: singles(200) }));
    expect(violations({ messages: [message(groups(50))] })).toEqual([]);
    expect(violations({ messages: [message([...groups(50), { to: '1' }])] })).toEqual([
      ['messages[0].destinations', 'size must be between 1 and 10000'],
    ]);
    expect(violations({ messages: [message(singles(6000)), message(singles(4001))] })).toEqual([
      ['messages', 'destinations of all messages: size must be between 1 and 10000'],
    ]);
  });

  it('tells the other violations of a request that is over a limit too', () => {
    const body = { messages: [{ ...message(Array.from({ length: 10_001 }, () => ({ to: '1' }))), sender: null }] };
    expect(violations(body)).toEqual([
      ['messages[0].destinations', 'size must be between 1 and 10000'],
      ['messages[0].sender', 'must not be null'],
    ]);
  });

  it('names a place for a whole body of the wrong kind', () => {
    expect(violations([])).toEqual([['', 'must be a object']]);
    expect(violations(null)).toEqual([['', 'must not be null']]);
  });

  it('does not work through more elements than a limit allows, however many there are', () => {
    const many = Array.from({ length: 45_000 }, () => ({}));
    const found = violations({ messages: [{ ...message(many), content: { messageSegments: many } }, message(many)] });
    expect(found).toHaveLength(100);
    expect(found[0]).toEqual(['messages[0].destinations', 'size must be between 1 and 10000']);
  });

  it('does not work through groups beyond the limit of destinations', () => {
    const full = message(Array.from({ length: 10_000 }, () => ({ to: '41790000000' })));
    const beyond = message([{ group: Array.from({ length: 200 }, () => ({})) }]);
    expect(violations({ messages: [full, beyond, beyond] })).toEqual([
      ['messages', 'destinations of all messages: size must be between 1 and 10000'],
      ['messages[1].destinations[0].group[0].to', 'must not be null'],
      ['messages[2].destinations[0].group[0].to', 'must not be null'],
    ]);
  });
});
