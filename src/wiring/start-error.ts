/**
 * Why a server could not start, in lines for whoever started it. Thrown while starting only; `startServer` rejects with it.
 */

/** The server could not start; each line names one thing that is wrong and what would be right. */
export class StartError extends Error {
  override readonly name = 'StartError';
  readonly lines: string[];
  constructor(lines: string[]) {
    super(lines.join('\n'));
    this.lines = lines;
  }
}

/** The lines of any failure of a start. */
export function startLines(error: unknown): string[] {
  if (error instanceof StartError) return error.lines;
  return [error instanceof Error ? error.message : String(error)];
}

/** The line about a port that could not be had. */
export function portTaken(setting: string, host: string, port: number, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
  const why = code === 'EADDRINUSE' ? 'is taken by another process' : `cannot be opened (${code})`;
  return `${setting}: ${host}:${port} ${why}; stop that process or choose another port with ${setting}`;
}

/** Whether an error is about the port, or the address, to listen on. */
export function isPortError(error: unknown): boolean {
  return ['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL', 'ENOTFOUND'].includes((error as NodeJS.ErrnoException).code ?? '');
}
