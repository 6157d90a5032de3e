import { describe, expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import type { SendRequest } from '../domain/message.ts';
import { DEFAULT_LIMITS, sendSchema } from './schema.ts';

const schema = sendSchema({ limits: DEFAULT_LIMITS, checkCallout: () => null }, { now: 0 });

/** Exactly equal, member by member; `tsc` fails when the two drift apart (vitest itself does not look at types). */
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Flat<T> = T extends object ? { [K in keyof T]: Flat<T[K]> } : T;
const proof: Equal<Flat<z.output<typeof schema>>, Flat<SendRequest>> = true;

describe('the schema of a request', () => {
  it('has the type that the domain has', () => {
    expect(proof).toBe(true);
    expectTypeOf<z.output<typeof schema>>().toEqualTypeOf<SendRequest>();
  });

  it('says its limits in JSON Schema too', () => {
    const text = JSON.stringify(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }));
    for (const limit of [66, 200, 4096, 255, 4000, 100]) expect(text).toContain(`"maxLength":${limit}`);
    for (const limit of [1000, 10_000, 20, 7]) expect(text).toContain(`"maxItems":${limit}`);
    expect(text).toContain('"minimum":0,"maximum":23');
  });
});
