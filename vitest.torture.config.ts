import { defineConfig } from 'vitest/config';

// Real processes, killed and traced: slow, one at a time, run by .ci/run after the fast suites.
export default defineConfig({
  test: {
    include: ['test/torture/**/*.test.ts'],
    setupFiles: ['test/log-watch.ts'],
    testTimeout: 600_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
