/** Random histories on the SQLite engine and the model side by side. */
import { modelSuite } from './model.suite.ts';
import { openSynchronous } from './sqlite.harness.ts';

modelSuite('SQLite engine', openSynchronous, { runs: 60, every: 4 });
