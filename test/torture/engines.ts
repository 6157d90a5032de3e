/** Which engines a suite can torture here, each with the words that say why not. */
import { clusterPrograms } from './cluster.ts';
import type { Engine } from './cycle.ts';

/**
 * PostgreSQL is tortured on a server of the torture's own, which is killed: that takes its programs, and POSTCARD_TEST_POSTGRES
 * set as for the other PostgreSQL suites, so that a machine without them says what it has skipped.
 */
const why =
  process.env.POSTCARD_TEST_POSTGRES === undefined
    ? 'POSTCARD_TEST_POSTGRES is not set'
    : clusterPrograms() === null
      ? 'initdb and postgres are not installed'
      : null;

export const ENGINES: { engine: Engine; skip: boolean; title: string }[] = [
  { engine: 'sqlite', skip: false, title: 'sqlite' },
  { engine: 'postgres', skip: why !== null, title: why === null ? 'postgres' : `postgres (skipped: ${why})` },
];
