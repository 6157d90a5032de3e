/** The document is made once, when it is asked for, and in pieces between which others are served. */
import Fastify from 'fastify';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { Clock } from '../env.ts';
import { describeRoutes, NO_SCHEMAS } from './document.ts';

/** `failing`: so many turns fail. */
function door(failing = 0) {
  let turns = 0;
  const clock = {
    sleep: async () => {
      if (++turns <= failing) throw new Error('not now');
    },
  } as unknown as Clock;
  const app = Fastify({ exposeHeadRoutes: true, schemaController: NO_SCHEMAS });
  const document = describeRoutes(app, 'https://mms.example', clock);
  const kept: unknown[] = [];
  app.addHook('onRoute', (route) => void kept.push(route.schema));
  for (const n of [1, 2, 3, 4, 5]) {
    app.get(`/things/${n}`, { schema: { response: { 200: z.object({ [`n${n}`]: z.number() }) } } }, () => 'ok');
  }
  app.get('/plain', () => 'ok');
  return { app, document, turns: () => turns, kept };
}

describe('the document', () => {
  it('tells the routes that have something to tell, not their twins for HEAD', async () => {
    const { app, document } = door();
    await app.ready();
    const { openapi, servers, paths } = JSON.parse(await document());
    expect([openapi, servers]).toEqual(['3.1.0', [{ url: 'https://mms.example' }]]);
    expect(Object.keys(paths)).toEqual([1, 2, 3, 4, 5].map((n) => `/things/${n}`));
    for (const path of Object.values(paths)) expect(Object.keys(path as object)).toEqual(['get']);
    const answer = paths['/things/3'].get.responses['200'].content['application/json'].schema;
    expect(answer.properties).toEqual({ n3: { type: 'number' } });
    await app.close();
  });

  it('is not made before the first question, and then in a piece for each route at least', async () => {
    const { app, document, turns } = door();
    await app.ready();
    expect(turns()).toBe(0);
    await document();
    expect(turns()).toBeGreaterThanOrEqual(5 + 3);
    await app.close();
  });

  it('is made once for all who ask, at the same time or later', async () => {
    const { app, document, turns } = door();
    await app.ready();
    const [first, second] = await Promise.all([document(), document()]);
    const made = turns();
    expect(second).toBe(first);
    expect(await document()).toBe(first);
    expect(turns()).toBe(made);
    await app.close();
  });

  it('is made at the next question when it could not be made at the first', async () => {
    const { app, document } = door(1);
    await app.ready();
    await expect(document()).rejects.toThrow('not now');
    expect(Object.keys(JSON.parse(await document()).paths)).toHaveLength(5);
    await app.close();
  });

  it('relieves the routes of their schemas, which nothing of ours runs by', async () => {
    const { app, kept } = door();
    await app.ready();
    expect(kept.length).toBeGreaterThan(5);
    expect(kept.every((schema) => schema === undefined)).toBe(true);
    expect((await app.inject('/things/1')).body).toBe('ok');
    await app.close();
  });
});
