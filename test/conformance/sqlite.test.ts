/** The SQLite engine against the store's conformance suite. */
import { openSynchronous, openThreaded } from './sqlite.harness.ts';
import { storeSuite } from './store.suite.ts';

storeSuite('sqlite engine', { open: openSynchronous, clock: true });
storeSuite('sqlite threads', { open: openThreaded, clock: false });
