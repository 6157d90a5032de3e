/** The model store against the conformance suite that the engines are held to. */
import { accountsSuite } from './accounts.suite.ts';
import { bulkSuite } from './bulk.suite.ts';
import type { Harness } from './desk.ts';
import { earlySuite } from './early.suite.ts';
import { enrouteSuite } from './enroute.suite.ts';
import { failoverSuite } from './failover.suite.ts';
import { hooksSuite } from './hooks.suite.ts';
import { inboundSuite } from './inbound.suite.ts';
import { linksSuite } from './links.suite.ts';
import { createModelStore } from './model-store.ts';
import { raceSuite } from './races.suite.ts';
import { storeSuite } from './store.suite.ts';

async function open(): Promise<Harness> {
  const store = createModelStore();
  return {
    store,
    advance: store.advance,
    now: store.now,
    crash: async () => store.crash(),
    close: () => store.close(),
  };
}

storeSuite('model', { open, clock: true });
bulkSuite('model', open);
accountsSuite('model', open);
failoverSuite('model', open);
earlySuite('model', open);
enrouteSuite('model', open);
hooksSuite('model', open);
inboundSuite('model', open);
linksSuite('model', open);
raceSuite('model', { open, clock: true });
