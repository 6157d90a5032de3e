/**
 * `postcard media FILE...`: what a carrier of a profile would be sent of these files, without a server: each before and after, the
 * whole against the limit, or the error that the message would end with. The same code as in the server decides.
 *
 * Fails: exit code 1 when the content cannot be sent, or a file not be read or written.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, extname, join, resolve } from 'node:path';
import type { Config } from '../config.ts';
import { errorView } from '../domain/codes.ts';
import { fallbackName, fileNames, wireNames } from '../domain/content.ts';
import { PROFILES, type Profile, type ProfileName } from '../domain/profile.ts';
import type { Env } from '../env.ts';
import { createFitter, type PartNote } from '../media/fit.ts';
import { createFitting } from '../media/fitting.ts';
import type { Facts } from '../media/image.ts';
import { kindOf } from '../media/kind.ts';
import { Failure, type Form, type Io, machine, plain, table } from './terminal.ts';

/** Files, and what they are to fit: a ready-made profile, or that of a configured carrier. */
export interface MediaAsk {
  files: string[];
  profile: string;
  /** Where what would be sent is written; none = nowhere. */
  out?: string;
  output: Form;
}

/** Shows what would be sent; resolves with the exit code. */
export async function media(io: Io, env: Env, config: Config, ask: MediaAsk): Promise<number> {
  const profile = profileOf(ask.profile, config);
  const files = ask.files.map((path) => ({ path, bytes: read(io, path) }));
  const kinds = await Promise.all(files.map(({ path, bytes }) => kindOf(bytes, undefined, byEnding(path))));
  const types = kinds.map((kind, i) =>
    kind.ok ? kind.contentType : (byEnding(files[i]?.path ?? '') ?? 'application/octet-stream'),
  );
  const names = wireNames(
    files.map(({ path }, i) => ({ contentId: basename(path), fallback: fallbackName(types[i] as string, i + 1) })),
  );
  const parts = files.map(({ bytes }, i) => ({
    contentId: names[i] as string,
    contentType: types[i] as string,
    bytes,
  }));
  const fitting = createFitting(env);
  try {
    const result = await createFitter({ env, store: null, fitting }).fit({ parts }, profile);
    const note = (id: string): PartNote | undefined => result.notes.find(({ contentId }) => contentId === id);
    const rows = parts.map((part, i) => {
      const sent = result.ok ? result.content.parts[i] : undefined;
      const from: Facts = note(part.contentId)?.from ?? { type: part.contentType, bytes: part.bytes.byteLength };
      const same = sent !== undefined && sent.bytes === part.bytes;
      const to: Facts | undefined = same ? from : note(part.contentId)?.to;
      return { file: files[i]?.path ?? '', name: part.contentId, from, to: result.ok ? to : undefined, same };
    });
    const verdict = result.ok
      ? { ok: true as const, bytes: result.size, limit: profile.maxBytes }
      : { ok: false as const, error: result.error, name: errorView(result.error).name, words: result.words };
    if (ask.output !== 'table') io.out(machine(ask.output, [{ profile: ask.profile, parts: rows, ...verdict }]));
    else {
      const lines = rows.map(({ file, from, to, same }) => [
        plain(basename(file)),
        shown(from),
        to === undefined ? '-' : same ? 'as it is' : shown(to),
      ]);
      io.out(table(['FILE', 'IS', 'IS SENT'], lines));
      if (verdict.ok) {
        const part = Math.round((100 * verdict.bytes) / verdict.limit);
        const left = `${part} % of ${verdict.limit} (${plain(ask.profile)}, ${profile.transferEncoding})`;
        io.out(`at most ${verdict.bytes} bytes with all that is around them: ${left}\n`);
      }
    }
    if (!result.ok) {
      io.err(`postcard: it cannot be sent: ${plain(result.words)} (${result.error} ${errorView(result.error).name})\n`);
      return 1;
    }
    if (ask.out !== undefined) write(io, ask.out, result.content.parts);
    return 0;
  } finally {
    await fitting.close();
  }
}

function profileOf(name: string, config: Config): Profile {
  if (Object.hasOwn(PROFILES, name)) return PROFILES[name as ProfileName];
  const carrier = config.carriers.find((one) => one.name === name);
  if (carrier?.type === 'mm7') {
    return carrier.profile ?? { ...PROFILES.any, transferEncoding: carrier.transferEncoding };
  }
  const known = [
    ...Object.keys(PROFILES),
    ...config.carriers.filter(({ type }) => type === 'mm7').map((one) => one.name),
  ];
  throw new Failure(`--profile: ${plain(name)} is unknown; known are ${known.join(', ')}`);
}

/** What the bytes do not tell. */
const BY_ENDING: Record<string, string> = {
  '.txt': 'text/plain',
  '.vcf': 'text/vcard',
  '.ics': 'text/calendar',
  '.vcs': 'text/x-vcalendar',
  '.svg': 'image/svg+xml',
  '.wbmp': 'image/vnd.wap.wbmp',
  '.html': 'text/html',
  '.mid': 'audio/midi',
  '.mp3': 'audio/mpeg',
};

function byEnding(path: string): string | null {
  return BY_ENDING[extname(path).toLowerCase()] ?? null;
}

function read(io: Io, path: string): Uint8Array {
  if (/^\.smil?$/i.test(extname(path))) {
    throw new Failure(`${plain(path)}: is a presentation; give the pictures, sounds and texts that it shows instead`);
  }
  let bytes: Uint8Array;
  try {
    bytes = io.readFile(resolve(io.cwd, path));
  } catch (error) {
    throw new Failure(`${plain(path)}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
  }
  if (bytes.byteLength === 0) throw new Failure(`${plain(path)}: is empty`);
  return bytes;
}

function write(io: Io, to: string, parts: { contentId: string; contentType: string; bytes: Uint8Array }[]): void {
  const dir = resolve(io.cwd, to);
  try {
    mkdirSync(dir, { recursive: true });
    // What was re-encoded gets the extension of what it is now.
    const names = fileNames(parts);
    for (const [i, { bytes }] of parts.entries()) writeFileSync(join(dir, names[i] as string), bytes);
  } catch (error) {
    throw new Failure(
      `--out: cannot write to ${plain(dir)} (${(error as NodeJS.ErrnoException).code ?? String(error)})`,
    );
  }
}

/** `image/jpeg 640x480, 12 frames, 4 s, 81234 bytes` */
function shown({ type, bytes, width, height, frames, seconds }: Facts): string {
  const words = [type + (width === undefined ? '' : ` ${width}x${height}`)];
  if (frames !== undefined) words.push(`${frames} frames`);
  if (seconds !== undefined) words.push(`${Math.round(seconds * 10) / 10} s`);
  return plain([...words, `${bytes} bytes`].join(', '));
}
