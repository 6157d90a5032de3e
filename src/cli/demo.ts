/**
 * `postcard demo`: the main job before your eyes. Starts the whole server on a data directory of its own with the sandbox
 * (an MMSC and handsets behind real sockets), and a receiver for webhooks; uploads a picture, sends it with a text through
 * the HTTP API, and tells the message's story as it happens until it is delivered and reported.
 *
 * Promises: nothing is staged. What is printed was answered by the API, by the handset or to the webhook; the picture that the
 * handset hands out is compared byte for byte. Messages go to the sandbox only, whatever carriers are configured. Every run
 * may find what earlier ones left. Exit code 0 = delivered, fetched, the same bytes, and reported; else 1.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Config, ROLES } from '../config.ts';
import type { Env } from '../env.ts';
import type { Running } from '../main.ts';
import { type Client, createClient, type ReportView, type StoryView } from './client.ts';
import { aborted, type Start, sendCurl, startWhole, stopServer } from './serve.ts';
import { isDelivered, isFinal } from './story.ts';
import { Failure, hasColor, type Io, type Paint, paint, plain, shortInstant } from './terminal.ts';

const PICTURE = fileURLToPath(new URL('./demo/greetings.png', import.meta.url));
/** Numbers of the range that British films use: they belong to nobody. */
const HANDSET = '447700900001';
const SENDER = '447700900000';
const TEXT = 'Wish you were here! The sea is warm and the queue is empty.';
/** A delivery takes about a second. */
const PATIENCE_MS = 60_000;
const LOOK_MS = 60;
const WEBHOOK_BYTES = 1024 * 1024;

/** The settings of a demo: its own data directory, the sandbox as the only carrier, and a receiver on this machine. */
export function demoConfig(config: Config, env: Env): Config {
  const dataDir = join(config.dataDir, 'demo');
  return {
    ...config,
    dataDir,
    store: `sqlite:${join(dataDir, 'postcard.db')}`,
    roles: [...ROLES],
    sandbox: true,
    carriers: [],
    // The story is on the screen; only what goes wrong is worth a line beside it.
    logLevel: config.logLevel === 'info' ? 'warn' : config.logLevel,
    outboundAllow: [...new Set([...config.outboundAllow, '127.0.0.0/8'])],
    apiKey: config.apiKey ?? Buffer.from(env.random.bytes(16)).toString('hex'),
  };
}

/** Tells the story, then stays up unless `exit`; the exit code. Fails with StartError, or a Failure of the client. */
export async function demo(
  io: Io,
  env: Env,
  config: Config,
  exit: boolean,
  start: Start = startWhole,
): Promise<number> {
  const colors = paint(hasColor(io));
  const receiver = await startReceiver();
  let running: Running | null = null;
  try {
    running = await start(config, { env });
    const key = config.apiKey as string;
    io.out(
      `\n  ${colors.brand('Postcard')} demo: one MMS with text and a picture, from the API to a handset and back\n\n`,
    );
    const line = (name: string, value: string): void => io.out(`  ${colors.dim(name.padEnd(10))}  ${value}\n`);
    line('API', running.url);
    line('carrier', `the sandbox at ${running.sandboxUrl}, an MMSC that speaks MM7`);
    line('webhook', receiver.url);
    io.out('\n');
    const code = await tell(io, env, colors, running, createClient({ url: running.url, key, env }), receiver);
    if (exit || io.stop.aborted) return code;
    io.out(`\n  ${colors.dim('The server stays up, ^C ends it. Send another one:')}\n\n`);
    io.out(`${sendCurl(running.url, key)}\n\n`);
    io.out(
      `  ${colors.dim('and look at the handset:')}\n\ncurl ${running.sandboxUrl}/sandbox/handsets/${HANDSET}/messages\n\n`,
    );
    await aborted(io.stop);
    return code;
  } finally {
    if (running) await stopServer(running, env);
    receiver.server.closeAllConnections();
    receiver.server.close();
  }
}

/** Sends the message and tells its story; the exit code. */
async function tell(
  io: Io,
  env: Env,
  colors: Paint,
  running: Running,
  client: Client,
  receiver: Receiver,
): Promise<number> {
  const step = (name: string, words: string, good: boolean | null = null): void => {
    const shade = good === null ? name.padEnd(10) : (good ? colors.good : colors.bad)(name.padEnd(10));
    io.out(`  ${shade}  ${plain(words)}\n`);
  };
  const picture = io.readFile(PICTURE);
  const uploadedContentId = await client.upload('greetings.png', 'image/png', picture);
  step('uploaded', `greetings.png, ${picture.length} bytes`);

  const started = env.clock.monotonic();
  const since = (): string => `${((env.clock.monotonic() - started) / 1000).toFixed(2)} s`;
  const sent = await client.send({
    messages: [
      {
        sender: SENDER,
        destinations: [{ to: HANDSET }],
        content: {
          title: 'Greetings from Postcard',
          messageSegments: [
            { type: 'TEXT', text: TEXT },
            { type: 'UPLOADED_REFERENCE', uploadedContentId, contentId: 'greetings.png' },
          ],
        },
        webhooks: { delivery: { url: receiver.url }, callbackData: 'demo' },
      },
    ],
  });
  const message = sent.messages[0];
  if (!message || isFinal(message.status)) {
    step(
      'refused',
      message ? `${message.status.name}: ${message.status.description}` : 'no message in the answer',
      false,
    );
    return 1;
  }
  const id = message.messageId;
  step('accepted', `${message.status.name} as ${id}: on disk before the answer, ${since()}`);

  const look = lookout(step, since);
  const deadline = started + PATIENCE_MS;
  for (;;) {
    const story = await client.story(id);
    if (story) look(story);
    const report = receiver.reports.get(id);
    if (story && isFinal(story.status) && report) {
      step(
        'reported',
        `the webhook received ${report.status.name} and answered 200, ${since()}`,
        isDelivered(report.status),
      );
      const seen = await handset(io, colors, running, picture, story, step);
      return seen && isDelivered(story.status) && report.status.name === story.status.name ? 0 : 1;
    }
    if (io.stop.aborted) return 1;
    if (env.clock.monotonic() > deadline) {
      const missing =
        story && isFinal(story.status) ? 'the report did not reach the webhook' : 'the message is not final';
      step(
        'failed',
        `${missing} after ${PATIENCE_MS / 1000} s; its status is ${story?.status.name ?? 'unknown'}`,
        false,
      );
      return 1;
    }
    await env.clock.sleep(LOOK_MS, io.stop);
  }
}

/** Tells each attempt and each status once, in the demo's words. */
function lookout(
  step: (name: string, words: string, good?: boolean | null) => void,
  since: () => string,
): (story: StoryView) => void {
  let attempts = 0;
  let events = 0;
  return (story) => {
    for (const attempt of story.attempts.slice(attempts)) {
      const { outcome, carrier, carrierMessageId, tookMs, words } = attempt;
      if (outcome === 'accepted') {
        step(
          'submitted',
          `over MM7 to the ${carrier}, which took it as ${carrierMessageId} in ${tookMs} ms, ${since()}`,
        );
      } else step('attempt', `${outcome} by the ${carrier} (${words}), ${since()}`, false);
    }
    attempts = story.attempts.length;
    for (const event of story.events.slice(events)) {
      const said = event.words === '' ? '' : ` (the carrier reports "${event.words}")`;
      const name = !isFinal(event.status) ? 'status' : isDelivered(event.status) ? 'retrieved' : 'ended';
      // That it is under way has been told by the attempt.
      if (isFinal(event.status)) step(name, `${event.status.name}${said}, ${since()}`, isDelivered(event.status));
    }
    events = story.events.length;
  };
}

interface InboxMessage {
  id: string;
  from: string;
  subject: string;
  receivedAt: string;
  parts: { contentType: string; contentId: string; size: number; sha256: string; text?: string; url: string }[];
}

/** Shows what lies on the handset and compares the picture with what was sent. */
async function handset(
  io: Io,
  colors: Paint,
  running: Running,
  picture: Buffer,
  story: StoryView,
  step: (name: string, words: string, good?: boolean | null) => void,
): Promise<boolean> {
  const inbox = `${running.sandboxUrl}/sandbox/handsets/${HANDSET}/messages`;
  const { messages } = (await (await fetch(inbox)).json()) as { messages: InboxMessage[] };
  // The newest one, where the sandbox's id does not say which: earlier runs left theirs.
  const carrierId = story.attempts.at(-1)?.carrierMessageId;
  const mine = messages.find((message) => message.id === carrierId) ?? messages.at(-1);
  const image = mine?.parts.find((part) => part.contentType.startsWith('image/'));
  const text = mine?.parts.find((part) => part.contentType.startsWith('text/plain'));
  if (!mine || !image) {
    step('failed', `no picture on handset ${HANDSET}`, false);
    return false;
  }
  const bytes = Buffer.from(await (await fetch(image.url)).arrayBuffer());
  const hash = (of: Buffer): string => createHash('sha256').update(of).digest('hex');
  const same = hash(bytes) === hash(picture) && text?.text === TEXT;
  io.out(
    `\n  ${colors.dim(`On handset ${HANDSET} since ${shortInstant(mine.receivedAt)}, from ${plain(mine.from)}:`)}\n`,
  );
  io.out(`  ${colors.brand(plain(mine.subject))}\n  ${plain(text?.text ?? '')}\n`);
  io.out(`  ${image.url}  ${colors.dim(`${plain(image.contentType)}, ${bytes.length} bytes`)}\n`);
  if (!same) step('failed', 'text or picture on the handset are not what was sent', false);
  return same;
}

// --- The receiver ----------------------------------------------------------------------------------------------------

interface Receiver {
  url: string;
  server: Server;
  /** The latest report for a messageId. */
  reports: Map<string, ReportView>;
}

/** A customer's receiver: a real HTTP server on a free port of this machine. */
async function startReceiver(): Promise<Receiver> {
  const reports = new Map<string, ReportView>();
  const server = createServer((request, response) => void receive(request, response, reports));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/reports`, server, reports };
}

async function receive(
  request: IncomingMessage,
  response: ServerResponse,
  reports: Map<string, ReportView>,
): Promise<void> {
  try {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > WEBHOOK_BYTES) throw new Failure('too large');
      chunks.push(chunk);
    }
    const { results } = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { results: ReportView[] };
    for (const report of results) {
      // One run sends one message: what an earlier run left over is answered and forgotten.
      if (reports.size < 1000) reports.set(report.messageId, report);
    }
    response.writeHead(200).end();
  } catch {
    response.writeHead(400).end();
  }
}
