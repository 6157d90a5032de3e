/**
 * `postcard send`: uploads the media files, sends one MMS to one or many, and with --wait follows each message to its final
 * status. `postcard show` tells one message's story.
 *
 * Promises: nothing is sent unless every file could be read and named by its type. Exit code 0 = accepted for all (with
 * --wait: delivered to all), else 1.
 */
import { basename, extname, resolve } from 'node:path';
import { fileTypeFromBuffer } from 'file-type';
import type { Env } from '../env.ts';
import type { Client, Sent, StoryView } from './client.ts';
import { outlasting } from './outlast.ts';
import { createFollower, happeningLine, isDelivered, isFinal, statusWords, storyText } from './story.ts';
import { Failure, type Form, hasColor, type Io, machine, paint, plain } from './terminal.ts';

/** What was typed after `send`. */
export interface SendOptions {
  to: string[];
  sender: string;
  text: string[];
  media: string[];
  title?: string;
  messageId?: string;
  wait: boolean;
  output: Form;
}

/** A file larger than any MMS, and than any limit that a server would be given. */
const FILE_BYTES = 256 * 1024 * 1024;
/** How often a message is looked at: fast while it is young, then patient. */
const LOOK_MS = [150, 150, 250, 250, 500, 500, 1000, 2000];

interface File {
  path: string;
  name: string;
  mediaType: string;
  bytes: Buffer;
}

/** Sends, and waits where asked to; the exit code. Fails with a Failure (files, server, refusal of the whole request). */
export async function send(io: Io, env: Env, client: Client, options: SendOptions): Promise<number> {
  const files = await readFiles(io, options.media);
  const segments: object[] = options.text.map((text) => ({ type: 'TEXT', text }));
  const names = new Set<string>();
  for (const file of files) {
    const contentId = unique(file.name, names);
    const uploadedContentId = await client.upload(contentId, file.mediaType, file.bytes);
    segments.push({ type: 'UPLOADED_REFERENCE', uploadedContentId, contentId });
  }
  const sent = await client.send({
    messages: [
      {
        sender: options.sender,
        destinations: options.to.map((to) => ({ to, ...(options.messageId ? { messageId: options.messageId } : {}) })),
        content: { ...(options.title === undefined ? {} : { title: options.title }), messageSegments: segments },
      },
    ],
  });
  const refused = sent.messages.filter((message) => isFinal(message.status));
  if (options.wait) return follow(io, env, client, sent, options.output);
  if (options.output === 'json') io.out(`${JSON.stringify(sent, null, 2)}\n`);
  else if (options.output === 'ndjson') io.out(machine('ndjson', sent.messages));
  else {
    for (const { messageId, destination, status } of sent.messages) {
      io.out(
        `${plain(messageId)}  ${plain(destination)}  ${status.name}${isFinal(status) ? `: ${plain(status.description)}` : ''}\n`,
      );
    }
  }
  return refused.length > 0 ? 1 : 0;
}

/** Follows every accepted message until all are final. */
async function follow(io: Io, env: Env, client: Client, sent: Sent, form: Form): Promise<number> {
  const colors = paint(hasColor(io));
  const several = sent.messages.length > 1;
  const open = new Map<string, ReturnType<typeof createFollower>>();
  const done: (StoryView | Sent['messages'][number])[] = [];
  let delivered = 0;
  for (const message of sent.messages) {
    if (!isFinal(message.status)) open.set(message.messageId, createFollower());
    else {
      // Refused at the door: it has no story.
      done.push(message);
      if (form === 'ndjson') io.out(machine('ndjson', [message]));
      if (form === 'table') io.out(`${colors.bad(plain(refusalLine(message)))}\n`);
    }
  }
  const look = outlasting(io, env, (why) => `postcard: ${why}; still waiting\n`);
  for (let round = 0; open.size > 0; round++) {
    for (const [id, news] of open) {
      if (io.stop.aborted) throw new Failure(`stopped waiting; postcard show ${id} tells how it went on`);
      const story = await look(() => client.story(id));
      if (story === 'away') break;
      if (!story) throw new Failure(`${client.url} accepted ${id} and does not know it now; is this the same server?`);
      for (const happening of news(story)) {
        if (form === 'ndjson') io.out(machine('ndjson', [{ messageId: id, to: story.to, ...happening }]));
        if (form === 'table') io.out(`${several ? `${plain(story.to)}  ` : ''}${happeningLine(happening, colors)}`);
      }
      if (!isFinal(story.status)) continue;
      open.delete(id);
      done.push(story);
      if (isDelivered(story.status)) delivered += 1;
    }
    if (open.size > 0) await env.clock.sleep(LOOK_MS[Math.min(round, LOOK_MS.length - 1)] as number, io.stop);
  }
  if (form === 'json') io.out(`${JSON.stringify({ bulkId: sent.bulkId, messages: done }, null, 2)}\n`);
  if (form === 'table' && several) io.out(`${delivered} of ${sent.messages.length} delivered\n`);
  return delivered === sent.messages.length ? 0 : 1;
}

function refusalLine({ destination, status }: Sent['messages'][number]): string {
  return `${destination}  ${statusWords({ status, error: null })}: ${status.description}`;
}

/** Shows one message's story; the exit code. Fails with a Failure when the server does not know it. */
export async function show(io: Io, client: Client, id: string, form: Form): Promise<number> {
  const story = await client.story(id);
  if (!story) throw new Failure(`${client.url} knows no message ${plain(id)} of this account`);
  if (form === 'table') io.out(storyText(story, paint(hasColor(io))));
  else io.out(form === 'json' ? `${JSON.stringify(story, null, 2)}\n` : machine('ndjson', [story]));
  return 0;
}

// --- Media files -----------------------------------------------------------------------------------------------------

/** Types that have no magic number, by the ending of the name. */
const BY_ENDING: Record<string, string> = {
  '.txt': 'text/plain',
  '.vcf': 'text/x-vcard',
  '.ics': 'text/calendar',
  '.svg': 'image/svg+xml',
};

async function readFiles(io: Io, paths: string[]): Promise<File[]> {
  const files: File[] = [];
  const wrong: string[] = [];
  for (const path of paths) {
    const at = `--media ${plain(path)}`;
    try {
      const bytes = io.readFile(resolve(io.cwd, path));
      const mediaType = (await fileTypeFromBuffer(bytes))?.mime ?? BY_ENDING[extname(path).toLowerCase()];
      if (bytes.length === 0) wrong.push(`${at}: the file is empty`);
      else if (bytes.length > FILE_BYTES) wrong.push(`${at}: too large for an MMS (${bytes.length} bytes)`);
      else if (!mediaType)
        wrong.push(`${at}: not a media type that we know; give a picture, audio, video or text file`);
      else files.push({ path, name: partName(path), mediaType, bytes });
    } catch (error) {
      wrong.push(`${at}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
    }
  }
  if (wrong.length > 0) throw new Failure(...wrong);
  return files;
}

/** The file's name as a part's name: what every carrier and HTTP header can take. */
function partName(path: string): string {
  return (
    basename(path)
      .normalize('NFKD')
      .replace(/[^A-Za-z0-9._-]+/g, '_')
      .slice(-80) || 'media'
  );
}

function unique(name: string, taken: Set<string>): string {
  let result = name;
  for (let n = 2; taken.has(result); n++) result = `${n}_${name}`;
  taken.add(result);
  return result;
}
