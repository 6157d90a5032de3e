/**
 * The embedded store in virtual time, for tests of what works on it: its clock is the one of a testEnv, read at each verb. And the door's
 * part of a message's way without the door.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createIds } from '../src/domain/ids.ts';
import type { SendRequest } from '../src/domain/message.ts';
import { numberRequest, numbersNeeded } from '../src/domain/numbering.ts';
import type { Routing } from '../src/domain/routing.ts';
import type { TestEnv } from '../src/env.ts';
import type { Store } from '../src/store/contract.ts';
import { type ControlledStore, openEngineStore } from './conformance/engine-store.ts';

/** When tests of this kind begin. */
export const START = Date.UTC(2026, 10, 24, 12);
/** Names of messages, for any key. */
export const IDS = createIds('00112233445566778899aabbccddeeff');

/** In a directory of its own, which goes when it is closed. */
export function openVirtualStore(env: TestEnv): ControlledStore {
  const dir = mkdtempSync(join(tmpdir(), 'postcard-virtual-'));
  const engine = openEngineStore(join(dir, 'store.db'), { now: env.clock.now() });
  const close = async (): Promise<void> => {
    await engine.close();
    rmSync(dir, { recursive: true, force: true });
  };
  return new Proxy(engine, {
    get(target, name: keyof ControlledStore) {
      if (name === 'close') return close;
      const verb = target[name] as (...args: unknown[]) => unknown;
      return (...args: unknown[]) => {
        target.advance(Math.max(0, env.clock.now() - target.now()));
        return verb.apply(target, args);
      };
    },
  });
}

/** Numbers and accepts a request of account 1 as the door does; the numbers of its messages. Throws where the store takes it not. */
export async function acceptRequest(
  store: Store,
  request: SendRequest,
  { now, routing }: { now: number; routing: Routing },
): Promise<number[]> {
  const first = await store.reserve(numbersNeeded(request));
  const { accept, entries } = numberRequest(request, { account: 1, first, now, routing, idem: null });
  const answer = await store.accept(accept);
  if (answer.kind !== 'accepted') throw new Error(answer.kind);
  return entries.map(({ no }) => no);
}
