/** What a claim asks about opt-outs: what it costs where somebody has opted out. */
import { describe, expect, it } from 'vitest';
import type { createEvents } from './events.ts';
import { createScreen } from './inbound.ts';
import type { Sql, Tx } from './tx.ts';

describe('who wants none, asked by claims', () => {
  it.each([
    ['somebody has opted out: one statement each, and a look once a second whether there is anybody', true, 12],
    ['nobody has: that look', false, 2],
  ])('where %s', async (_, there, most) => {
    let now = 1_000_000;
    const asked: string[] = [];
    const tx = {
      get now() {
        return now;
      },
      async query(statement: Sql | string) {
        const text = typeof statement === 'string' ? statement : statement.text;
        asked.push(text);
        return text.includes('AS there') ? [{ there }] : [{ no: 7, sender: 'shop' }];
      },
    } as unknown as Tx;
    const screen = createScreen({} as ReturnType<typeof createEvents>);
    for (let n = 0; n < 10; n++) {
      const found = await screen.find(tx, 1, () => [{ no: 7, to: '441134960001', spec: 5, leg: 0 }]);
      expect([...found]).toEqual(there ? [[7, 10]] : []);
      now += 150;
    }
    expect(asked).toHaveLength(most);
  });
});
