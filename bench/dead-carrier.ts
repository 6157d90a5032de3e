/**
 * One dead carrier beside four that answer at once: what share of their throughput is left? Everything is real: a server of its
 * own, MM7 over HTTP, the embedded store with its syncs. In one run, phase after phase: nothing waits for the fifth carrier; as much
 * waits for it as for each of the others, and it hangs; again nothing; it refuses connections; again nothing; it answers 500.
 * Each phase begins at one instant for all that was accepted before it, and what counts is its throughput over that of
 * the two phases around it. Promised: at least 0.95. `node bench/dead-carrier.ts [ROUNDS [MESSAGES_A_CARRIER]]`
 *
 * Ends with code 1 when something is wrong (a refused request, a message that one of the four did not get), never for a slow machine.
 */
import { freePorts, KEY } from '../test/torture/server.ts';
import { bench, median, ownDirectory, PATIENCE_MS, startPostcard, startScript, wait } from './stand.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const EACH = Number(process.argv[3] ?? 4_000);
const HEALTHY = 4;
const DEAD = ['hangs', 'refuses', '5xx'] as const;
/** Destinations of one request. */
const CHUNK = 1_000;
const dir = ownDirectory('dead');

async function startPeers(): Promise<{ control: string; ports: number[] }> {
  const modes = [...Array.from({ length: HEALTHY }, () => 'takes'), ...DEAD];
  const { line } = await startScript('mmscs.ts', ...modes);
  const { control, ports } = JSON.parse(line) as { control: number; ports: number[] };
  return { control: `http://127.0.0.1:${control}`, ports };
}

/** Carriers `c0` ... take the numbers that begin with 490, 491 ... */
async function startServer(ports: number[]): Promise<string> {
  const carriers = ports.map(
    (port, n) =>
      `  - { name: c${n}, type: mm7, url: "http://127.0.0.1:${port}/mm7", concurrency: 16, timeoutMs: 2000, reports: false }`,
  );
  const routes = ports.map((_, n) => `  - { to: 49${n}, carriers: [c${n}] }`);
  const yaml = `carriers:\n${carriers.join('\n')}\nroutes:\n${routes.join('\n')}\n`;
  return (await startPostcard(dir, await freePorts(), yaml, { POSTCARD_LOG_LEVEL: 'error' })).url;
}

async function ask(url: string, method: string, body: object): Promise<void> {
  const answer = await fetch(url, {
    method,
    headers: { authorization: `App ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`wrong: ${method} ${url} was answered ${answer.status}: ${await answer.text()}`);
  await answer.arrayBuffer();
}

/** Messages a second that the four have taken together; `dead` = the carrier for which as much waits, null = none. */
async function phase(url: string, control: string, name: string, dead: number | null): Promise<number> {
  const busy = [...Array(HEALTHY).keys(), ...(dead === null ? [] : [dead])];
  // Enough for the accepts, whatever the machine does meanwhile.
  const sendAt = new Date(Date.now() + 5_000 + (busy.length * EACH) / 10).toISOString();
  await fetch(`${control}/reset`);
  for (let from = 0; from < EACH; from += CHUNK) {
    for (const carrier of busy) {
      const destinations = Array.from({ length: Math.min(CHUNK, EACH - from) }, (_, i) => ({
        to: `49${carrier}${String(10_000_000 + from + i)}`,
      }));
      const content = { messageSegments: [{ type: 'TEXT', text: 'Some text of an alert, as long as most of them.' }] };
      const options = { schedule: { bulkId: `${name}-${carrier}`, sendAt } };
      await ask(`${url}/mms/2/messages`, 'POST', {
        messages: [{ sender: '441134960000', destinations, content }],
        options,
      });
    }
  }
  const figures = async (): Promise<{ count: number; firstMs: number; lastMs: number }> =>
    (await (await fetch(`${control}/figures`)).json()) as never;
  if ((await figures()).count > 0) throw new Error('wrong: it began before all was accepted; the machine is too slow');
  let seen = await figures();
  for (let progress = performance.now(); seen.count < HEALTHY * EACH; ) {
    await wait(100);
    const now = await figures();
    if (now.count > seen.count) progress = performance.now();
    seen = now;
    if (performance.now() - progress > PATIENCE_MS) throw new Error(`wrong: ${seen.count} of ${HEALTHY * EACH} came`);
  }
  if (dead !== null) await ask(`${url}/mms/2/bulks/status?bulkId=${name}-${dead}`, 'PUT', { status: 'CANCELED' });
  return (seen.count - 1) / ((seen.lastMs - seen.firstMs) / 1000);
}

await bench(dir, async () => {
  const { control, ports } = await startPeers();
  const url = await startServer(ports);
  await phase(url, control, 'warm', null);
  const shares = new Map<string, number[]>(DEAD.map((mode) => [mode, []]));
  const alone: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    let before = await phase(url, control, `${round}-first`, null);
    // In another order each time: what comes round (checkpoints) must not always meet the same.
    for (let turn = 0; turn < DEAD.length; turn++) {
      const n = (turn + round) % DEAD.length;
      const mode = DEAD[n] as (typeof DEAD)[number];
      const beside = await phase(url, control, `${round}-${mode}`, HEALTHY + n);
      const after = await phase(url, control, `${round}-after-${mode}`, null);
      shares.get(mode)?.push(beside / ((before + after) / 2));
      alone.push(before);
      before = after;
    }
    console.error(`round ${round}/${ROUNDS}`);
  }
  console.log(
    `four carriers that answer at once, ${EACH} messages each: ${Math.round(median(alone))} messages/s together\n` +
      'beside a fifth for which as much waits, share of that throughput (aim >= 0.95), median [min..max]:',
  );
  for (const [mode, values] of shares) {
    const range = `[${Math.min(...values).toFixed(2)}..${Math.max(...values).toFixed(2)}]`;
    console.log(`  it ${mode === '5xx' ? 'answers 500' : mode}`.padEnd(20), median(values).toFixed(2), range);
  }
});
