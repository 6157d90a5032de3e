/**
 * Short links in the simulation: who opens them on which handset, where they lead, and what is promised of the clicks.
 *
 * Promises judged here: a link that a handset got leads to the page that the customer wrote into that message; of clicks only
 * those of people are told, each at least once and to the endpoint of their message once the store has them (G10), in the bytes
 * they were stored with; nobody is told of a click that was not made; figures are what was stored. A click is written behind its
 * answer: it may be lost with its process, and with nothing else.
 */
import type { DatabaseSync } from 'node:sqlite';
import { createLinkTokens, LINK_PATH, type LinkTokens } from '../../src/domain/links.ts';
import type { ClickIn } from '../../src/store/contract.ts';
import { createLinkReads } from '../../src/store/sqlite/links.ts';
import { Dice, HOUR, MINUTE, SECOND } from './clockwork.ts';
import type { Order } from './customers.ts';

/** What a handset, or something on the way to it, does with a link. */
export interface Look {
  /** Virtual ms from the arrival of the message. */
  afterMs: number;
  method: 'GET' | 'HEAD';
  userAgent: string;
}

const PHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1';
const PREVIEW = 'WhatsApp/2.24.20 A';

/** What becomes of the link on the handset `to`: mostly one look, sometimes two in a row, or a preview's before. */
export function looksOf(seed: number, to: string, copy: number): Look[] {
  const dice = new Dice(seed, 'handset', to, copy);
  const looks: Look[] = [];
  if (dice.chance(0.2)) looks.push({ afterMs: dice.delay(SECOND, MINUTE), method: 'GET', userAgent: PREVIEW });
  if (dice.chance(0.1)) looks.push({ afterMs: dice.delay(SECOND, MINUTE), method: 'HEAD', userAgent: PHONE });
  if (dice.chance(0.3)) return looks;
  let afterMs = dice.chance(0.5) ? dice.delay(20 * SECOND, 10 * MINUTE) : dice.delay(20 * MINUTE, 3 * HOUR);
  for (let times = dice.chance(0.4) ? dice.int(2, 4) : 1; times > 0; times--) {
    looks.push({ afterMs, method: 'GET', userAgent: PHONE });
    afterMs += dice.chance(0.6) ? dice.between(20, 200) : dice.delay(5 * MINUTE, HOUR);
  }
  return looks;
}

/** Tokens of short links in texts. */
function tokensIn(texts: readonly string[]): string[] {
  const pattern = new RegExp(`${LINK_PATH}([0-9A-Za-z]{11})`, 'g');
  return [...new Set(texts.flatMap((text) => [...text.matchAll(pattern)].map((found) => found[1] as string)))];
}

/** What is known of one message's links. */
interface Tracked {
  account: number;
  to: string;
  key: string | null;
  order: Order;
  /** Looks that were asked of the door. */
  asked: number;
  /** Processes that led one on. */
  answered: { dead: boolean }[];
  /** Instants at which the store was told of one, each once. */
  at: Set<string>;
  /** Rows that the store counts. */
  human: number;
  flagged: number;
  /** Bodies that must be told, and those that were. */
  wanted: Set<string>;
  told: Set<string>;
}

export class Clicks {
  readonly #fail: (oracle: string, what: string, nos: readonly number[]) => void;
  readonly #byNo = new Map<number, Tracked>();
  readonly #byTo = new Map<string, number>();
  #tokens!: LinkTokens;
  #reads!: ReturnType<typeof createLinkReads>;

  constructor(fail: (oracle: string, what: string, nos: readonly number[]) => void) {
    this.#fail = fail;
  }

  open(db: DatabaseSync): void {
    const { v } = db.prepare("SELECT v FROM meta WHERE k = 'idKey'").get() as { v: string };
    this.#tokens = createLinkTokens(v);
    this.#reads = createLinkReads(db);
  }

  /** A message of an order whose links are shortened has been accepted. */
  accepted(no: number, message: { account: number; to: string; key: string | null }, order: Order): void {
    const none = { asked: 0, answered: [], at: new Set<string>(), human: 0, flagged: 0, wanted: new Set<string>() };
    this.#byNo.set(no, { ...message, order, ...none, told: new Set() });
    this.#byTo.set(message.to, no);
  }

  /** A handset got these texts: the links that somebody may open there. */
  arrived(no: number, recipients: readonly string[], texts: readonly string[]): string[] {
    const tracked = this.#byNo.get(no);
    const tokens = tokensIn(texts);
    if (tracked && tokens.length === 0) this.#fail('links are shortened', texts.join(' | '), [no]);
    for (const token of tokens) {
      const place = this.#tokens.parse(token);
      const of = place && this.#byNo.get(place.no);
      // One of the group, where several got the same text.
      if (!of || !recipients.includes(of.to))
        this.#fail('a link is of its message', `${token} on ${tracked?.to}`, [no]);
    }
    return tokens;
  }

  /** Told of each look that led on. */
  onLed: (token: string) => void = () => undefined;

  asked(token: string): void {
    const of = this.#of(token);
    if (of) of.asked++;
  }

  #of(token: string): Tracked | undefined {
    const place = this.#tokens.parse(token);
    return place ? this.#byNo.get(place.no) : undefined;
  }

  /** The door's answer to a look; `location` null = it led nowhere. */
  led(token: string, status: number, location: string | null, owner: { dead: boolean }): void {
    const of = this.#of(token);
    if (of && of.order.tracking?.clicks !== false) of.answered.push(owner);
    const no = this.#tokens.parse(token)?.no ?? -1;
    if (status === 302) this.onLed(token);
    if (status !== 302) this.#fail('a link that was sent leads on', `${status}`, [no]);
    else if (location !== of?.order.pages.get(pageKey(of.to))) {
      this.#fail('a link leads where its message says', `${location}`, [no]);
    }
  }

  /** The store has these clicks. */
  stored(clicks: readonly ClickIn[]): void {
    for (const { no, at, flag, body, device } of clicks) {
      const of = this.#byNo.get(no);
      if (!of) {
        this.#fail('a click is of a link that was sent', 'of nobody', [no]);
        return;
      }
      of.at.add(`${at} ${flag} ${device}`);
      if (of.at.size > of.asked) this.#fail('a click is somebody’s', `${of.at.size} of ${of.asked}`, [no]);
      const { tracking } = of.order;
      if (tracking?.clicks === false) this.#fail('clicks are counted where asked for', 'it only leads on', [no]);
      if (flag === null) of.human++;
      else of.flagged++;
      if ((flag === null) !== (body !== null)) this.#fail('only clicks of people are told', `${flag}`, [no]);
      if (body !== null && tracking?.host != null) of.wanted.add(body);
    }
  }

  /** An endpoint took a click's POST. */
  told(host: string, body: string): void {
    const { recipient, url } = JSON.parse(body) as { recipient: string; url: string };
    const no = this.#byTo.get(recipient) ?? -1;
    const of = this.#byNo.get(no);
    if (of?.order.tracking?.host !== host) {
      this.#fail('accounts are isolated (G18)', `${host} was told of a click that is not its own`, [no]);
    } else if (!of.wanted.has(body)) this.#fail('what is told is true', `a click that nobody made: ${body}`, [no]);
    else if (url !== of.order.pages.get(pageKey(recipient)))
      this.#fail('what is told is true', `a click on ${url}`, [no]);
    else of.told.add(body);
  }

  /** Whether all that is to be told was. */
  idle(): boolean {
    for (const { wanted, told } of this.#byNo.values()) if (told.size < wanted.size) return false;
    return true;
  }

  /** After phase 2. */
  finish(): void {
    for (const [no, { account, key, wanted, told, human, flagged, answered }] of this.#byNo) {
      const kept = answered.filter(({ dead }) => !dead).length;
      if (human + flagged < kept) {
        const what = `${human + flagged} of ${kept} that living processes led on`;
        this.#fail('a store that is away costs no click', what, [no]);
      }
      if (told.size < wanted.size) {
        this.#fail('a click that the store has is told (G10)', `${told.size} of ${wanted.size}`, [no]);
      }
      const figures = this.#reads.clicks(account, { message: key === null ? { no } : { key } });
      if (figures?.total !== human || figures.flagged !== flagged) {
        const what = `${figures?.total} and ${figures?.flagged} flagged, stored ${human} and ${flagged}`;
        this.#fail('figures of clicks are true', what, [no]);
      }
    }
  }
}

/** The digits of a destination that tell it from all others of a run. */
function pageKey(to: string): string {
  return to.slice(-7);
}
