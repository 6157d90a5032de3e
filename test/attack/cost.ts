/**
 * What a piece of synchronous work costs this thread, whoever else wants the processor: time on the wall says more about the machine
 * than about the work. Cannot fail.
 */
export function costOf<T>(work: () => T): { result: T; ms: number } {
  const began = process.threadCpuUsage();
  const result = work();
  const { user, system } = process.threadCpuUsage(began);
  return { result, ms: (user + system) / 1000 };
}
