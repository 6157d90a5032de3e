/** The SQLite engine against the store's conformance suite. */
import { accountsSuite } from './accounts.suite.ts';
import { bulkSuite } from './bulk.suite.ts';
import { earlySuite } from './early.suite.ts';
import { enrouteSuite } from './enroute.suite.ts';
import { failoverSuite } from './failover.suite.ts';
import { hooksSuite } from './hooks.suite.ts';
import { inboundSuite } from './inbound.suite.ts';
import { linksSuite } from './links.suite.ts';
import { raceSuite } from './races.suite.ts';
import { spendSuite } from './spend.suite.ts';
import { openSynchronous, openThreaded } from './sqlite.harness.ts';
import { storeSuite } from './store.suite.ts';

storeSuite('sqlite engine', { open: openSynchronous, clock: true });
bulkSuite('sqlite engine', openSynchronous);
earlySuite('sqlite engine', openSynchronous);
enrouteSuite('sqlite engine', openSynchronous);
accountsSuite('sqlite engine', openSynchronous);
failoverSuite('sqlite engine', openSynchronous);
spendSuite('sqlite engine', openSynchronous);
hooksSuite('sqlite engine', openSynchronous);
inboundSuite('sqlite engine', openSynchronous);
linksSuite('sqlite engine', openSynchronous);
raceSuite('sqlite engine', { open: openSynchronous, clock: true });
storeSuite('sqlite threads', { open: openThreaded, clock: false });
raceSuite('sqlite threads', { open: openThreaded, clock: false });
