/** The rows of a request as the door makes them, for benches that speak to a store without a door. */
import type { Accept, SpecIn } from '../src/domain/rows.ts';

/** `first`: the first of `count` + 2 reserved numbers. At once and without limits, unless `more` says otherwise. */
export function rowsOf(
  { first, count, lane }: { first: number; count: number; lane: number },
  more: { account?: number; bulkId?: string | null; spec?: Partial<SpecIn> } = {},
): Accept {
  const [start, end] = [first + 2, first + 2 + count];
  return {
    account: more.account ?? 1,
    first,
    bulkId: more.bulkId ?? null,
    sendAt: null,
    intervalUs: null,
    specs: [
      {
        first: start,
        end,
        sender: 'Bench',
        campaign: null,
        entity: null,
        application: null,
        endpoint: null,
        intermediate: false,
        notify: true,
        body: bodyOf('hello'),
        uploads: [],
        links: [],
        ...more.spec,
      },
    ],
    runs: [{ first: start, end, spec: first + 1, lane, group: false, window: null, validityMs: 172_800_000 }],
    to: Array.from({ length: count }, (_, n) => String(447_700_000_000 + n)),
    refused: [],
    keys: [],
    idem: null,
  };
}

/** A message's part that is kept once for all destinations. */
export const bodyOf = (text: string): string =>
  JSON.stringify({ sender: 'Bench', content: { messageSegments: [{ type: 'TEXT', text }] } });
