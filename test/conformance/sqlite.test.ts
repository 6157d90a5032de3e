/** The SQLite engine against the store's conformance suite. */
import { bulkSuite } from './bulk.suite.ts';
import { openSynchronous, openThreaded } from './sqlite.harness.ts';
import { storeSuite } from './store.suite.ts';

storeSuite('sqlite engine', { open: openSynchronous, clock: true });
bulkSuite('sqlite engine', openSynchronous);
storeSuite('sqlite threads', { open: openThreaded, clock: false });
