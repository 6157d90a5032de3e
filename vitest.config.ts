import { defineConfig } from 'vitest/config';

// Unit tests stand beside their file, suites under test/. Torture needs real processes and runs on its own (.ci/run).
export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: ['test/torture/**', 'node_modules/**'],
    setupFiles: ['test/log-watch.ts'],
    // Bounds for what hangs, not expectations: a machine may be busy with everything else.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
    maxWorkers: 2,
  },
});
