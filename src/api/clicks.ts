/**
 * GET /mms/2/clicks?messageId= | bulkId= | campaignReferenceId=: how often the short links of a message, a bulk or a campaign were
 * opened. Ours.
 *
 * Promises: exact as of the last batch of clicks (well under a second behind them); what belongs to another account is a 404.
 *
 * Fails: rejects with StoreUnavailable or a bug; what makes no sense is an Answer.
 */
import { z } from 'zod';
import type { Ids } from '../domain/ids.ts';
import type { ClickFigures, ClickScope, Store } from '../store/contract.ts';
import { type Answer, apiError } from './errors.ts';
import { ok } from './intake.ts';
import { readParameters, word } from './queries.ts';

/** The path. */
export const CLICKS = '/mms/2/clicks';

/** Exactly one of them. */
export const clicksQuery = z.object({
  messageId: word.optional(),
  bulkId: word.optional(),
  campaignReferenceId: word.optional(),
});

const counts = {
  total: z.int().meta({ description: 'Clicks by humans.' }),
  unique: z.int().meta({ description: 'Messages with at least one of them.' }),
  flagged: z.int().meta({ description: 'Looks by programs: crawlers, previews, HEAD; not in total.' }),
};
/** The answer. */
export const clicksAnswer = z
  .object({
    ...counts,
    links: z.array(z.object({ url: z.string(), ...counts })),
    cut: z.boolean().optional().meta({ description: 'Links of the newest 1000 requests only; the sums are of all.' }),
  })
  .meta({ id: 'Clicks' });

/** Answers the query for one account. */
export function createClicks({ store, ids }: { store: Pick<Store, 'clicks'>; ids: Ids }) {
  /** Under a generated id, else (or too) under the customer's own. */
  async function find(account: number, scopes: ClickScope[]): Promise<ClickFigures | null> {
    for (const scope of scopes) {
      const figures = await store.clicks(account, scope);
      if (figures) return figures;
    }
    return null;
  }

  return async function clicks(account: number, raw: unknown): Promise<Answer> {
    const read = readParameters(clicksQuery, raw);
    if (!read.ok) return apiError('E400', { violations: read.violations });
    const { messageId, bulkId, campaignReferenceId } = read.values;
    const scopes: ClickScope[] = [];
    if (messageId !== undefined) {
      const no = ids.parse('message', messageId);
      if (no !== null) scopes.push({ message: { no } });
      scopes.push({ message: { key: messageId } });
    }
    if (bulkId !== undefined) {
      const no = ids.parse('bulk', bulkId);
      if (no !== null) scopes.push({ bulk: { no } });
      scopes.push({ bulk: { id: bulkId } });
    }
    if (campaignReferenceId !== undefined) scopes.push({ campaign: campaignReferenceId });
    const given = [messageId, bulkId, campaignReferenceId].filter((one) => one !== undefined);
    if (given.length !== 1) {
      const violation = 'exactly one of messageId, bulkId and campaignReferenceId must be given';
      return apiError('E400', { violations: [{ property: '', violation }] });
    }
    const figures = await find(account, scopes);
    if (figures === null) return apiError('E404');
    const { cut, ...rest } = figures;
    return ok(cut ? { ...rest, cut } : rest);
  };
}
