/**
 * The SMSC of a torture: it takes texts over SMPP by the npm package `smpp`, which shares no code with the product, keeps a durable
 * log, never dies, and tells a receipt again until one of the sessions answers it. SMPP has no transaction id, so each text
 * that comes again is a further copy under an id of its own.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import smpp, { type PeerPdu, type PeerSession } from 'smpp';
import { type Journal, openJournal } from './journal.ts';

/** A receipt that is not answered in this time is told again, through another session if there is one. */
const RECEIPT_MS = 3_000;
const RECEIPT_AGAIN_MS = 500;
/** esm_class of a receipt. */
const RECEIPT = 0x04;

export interface Smsc {
  port: number;
  /** Ids of the copies that each number got. */
  byNumber: Map<string, string[]>;
  /** Texts as they came, by number: all copies are the same. */
  texts: Map<string, Set<string>>;
  journal: Journal;
  close(): Promise<void>;
}

/** Starts it on a free local port; `file` is its log. */
export async function startSmsc(file: string): Promise<Smsc> {
  const journal = openJournal(file);
  const byNumber = new Map<string, string[]>();
  const texts = new Map<string, Set<string>>();
  const sessions = new Set<PeerSession>();
  const timers = new Set<NodeJS.Timeout>();
  let turn = 0;
  let count = 0;
  let closed = false;

  function later(ms: number, run: () => void): void {
    if (closed) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      run();
    }, ms);
    timers.add(timer);
  }

  async function take(session: PeerSession, pdu: PeerPdu): Promise<void> {
    const to = String(pdu.destination_addr);
    const text = (pdu.short_message as { message: unknown }).message;
    const id = `t-${++count}`;
    byNumber.set(to, [...(byNumber.get(to) ?? []), id]);
    texts.set(to, (texts.get(to) ?? new Set()).add(String(text)));
    await journal.write({ kind: 'text', to, id });
    // Sometimes before we have answered: a receipt may overtake the answer to its submission.
    later(2 + Math.random() * 250, () => tell(to, id));
    later(Math.random() * 40, () => {
      if (sessions.has(session)) session.send(pdu.response({ message_id: id }));
    });
  }

  function tell(to: string, id: string): void {
    const bound = [...sessions];
    const session = bound[turn++ % Math.max(1, bound.length)];
    if (!session) {
      later(RECEIPT_AGAIN_MS, () => tell(to, id));
      return;
    }
    let ended = false;
    const end = (told: boolean): void => {
      if (ended) return;
      ended = true;
      if (told) void journal.write({ kind: 'receipt', to, id });
      else later(RECEIPT_AGAIN_MS, () => tell(to, id));
    };
    later(RECEIPT_MS, () => end(false));
    const short_message = `id:${id} sub:001 dlvrd:001 stat:DELIVRD err:000 text:`;
    session.deliver_sm({ esm_class: RECEIPT, source_addr: to, short_message }, ({ command_status }) =>
      end(command_status === 0),
    );
  }

  const server = smpp.createServer((session) => {
    const gone = (): void => {
      sessions.delete(session);
    };
    session.on('error', gone);
    session.on('close', gone);
    session.on('bind_transceiver', (pdu) => {
      sessions.add(session);
      session.send(pdu.response());
    });
    session.on('enquire_link', (pdu) => void session.send(pdu.response()));
    session.on('unbind', (pdu) => {
      gone();
      session.send(pdu.response());
      session.close();
    });
    session.on('submit_sm', (pdu) => void take(session, pdu));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    byNumber,
    texts,
    journal,
    async close() {
      closed = true;
      for (const timer of timers) clearTimeout(timer);
      const ended = new Promise((resolve) => server.close(resolve));
      for (const session of sessions) session.destroy();
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1_000))]);
      await journal.close();
    },
  };
}
