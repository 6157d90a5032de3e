/**
 * What the commands need of the world around them, and how results are shown: a table for people, JSON and NDJSON for
 * programs. Errors are lines on stderr that start with `postcard:`; results are on stdout and nothing else is.
 *
 * Promises: text from a server or a customer reaches a terminal without control characters (a title cannot move the cursor).
 * JSON forms carry it unchanged.
 */
import Table from 'cli-table3';

/** The process as a command sees it; tests give their own. */
export interface Io {
  /** Writes to stdout as it is. */
  out(text: string): void;
  /** Writes to stderr as it is. */
  err(text: string): void;
  env: Record<string, string | undefined>;
  cwd: string;
  /** Whether stdout is a terminal. */
  tty: boolean;
  /** Bytes of a file; throws Node's errors. */
  readFile(path: string): Buffer;
  /** Aborts when the person or a supervisor asks the command to end. */
  stop: AbortSignal;
  /** What SIGHUP does from now on, instead of ending the command. */
  onHangup?(act: () => void): void;
}

/** The command could not do what was asked; each line names one thing that is wrong and what would be right. Exit code 1. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly lines: string[];
  constructor(...lines: string[]) {
    super(lines.join('\n'));
    this.lines = lines;
  }
}

export const FORMS = ['table', 'json', 'ndjson'] as const;
export type Form = (typeof FORMS)[number];

/** Colours only on a terminal, and not where NO_COLOR (no-color.org) or TERM=dumb says no. */
export function hasColor(io: Pick<Io, 'tty' | 'env'>): boolean {
  return io.tty && !io.env.NO_COLOR && io.env.TERM !== 'dumb';
}

/** What gives text a meaning by its colour. */
export interface Paint {
  /** The product's colour, for its name and what matters most on a screen. */
  brand(text: string): string;
  good(text: string): string;
  bad(text: string): string;
  dim(text: string): string;
}

/** Without `color` each gives its text back as it is. */
export function paint(color: boolean): Paint {
  const sgr =
    (code: string) =>
    (text: string): string =>
      color ? `\u001b[${code}m${text}\u001b[0m` : text;
  return { brand: sgr('38;5;208'), good: sgr('32'), bad: sgr('31'), dim: sgr('2') };
}

/** Text as a terminal may have it: control characters and the ones that turn the writing direction become `?`. */
export function plain(text: string): string {
  return text
    .replace(/[\r\n\t]+/g, ' ')
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '?');
}

/** Columns without a frame, as `ls -l` has them; an empty head leaves the head out. */
export function table(head: string[], rows: string[][], widths?: (number | null)[]): string {
  const nothing = '';
  const made = new Table({
    ...(head.length > 0 ? { head } : {}),
    chars: {
      top: nothing,
      'top-mid': nothing,
      'top-left': nothing,
      'top-right': nothing,
      bottom: nothing,
      'bottom-mid': nothing,
      'bottom-left': nothing,
      'bottom-right': nothing,
      left: nothing,
      'left-mid': nothing,
      mid: nothing,
      'mid-mid': nothing,
      right: nothing,
      'right-mid': nothing,
      middle: '  ',
    },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
    ...(widths ? { colWidths: widths, wordWrap: true } : {}),
  });
  made.push(...rows);
  return `${made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')}\n`;
}

/** A list in one of the two forms for programs: one array, or a line an item. */
export function machine(form: 'json' | 'ndjson', items: readonly unknown[]): string {
  if (form === 'json') return `${JSON.stringify(items, null, 2)}\n`;
  return items.map((item) => `${JSON.stringify(item)}\n`).join('');
}

/** `2026-07-07 06:32:15.101` of an instant as the API writes it (`2026-07-07T06:32:15.101+0000`, always UTC). */
export function shortInstant(instant: string): string {
  return plain(instant.replace('T', ' ').replace(/(\+0000|Z)$/, ''));
}
