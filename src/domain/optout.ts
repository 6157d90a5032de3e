/**
 * STOP and its like: what a handset asks for in words, the form in which senders are compared, and what a message to one who
 * wants nothing becomes.
 *
 * Promises: pure; one pass over a short text. Tolerant of case, white space, punctuation and quotes around the word; strict in
 * that the message is the word and nothing else: "please stop by at nine" asks for nothing.
 */

/** Words that stop a sender, and those that let it speak again. Lower case, without white space around. */
export interface OptOutWords {
  stop: readonly string[];
  start: readonly string[];
}

/** The words that carriers and trade rules of the large markets ask for (CTIA, TCPA, GSMA). */
export const OPT_OUT_WORDS: Readonly<OptOutWords> = Object.freeze({
  stop: ['stop', 'stopall', 'stop all', 'unsubscribe', 'cancel', 'end', 'quit'],
  start: ['start', 'yes', 'unstop'],
});

/** Longer texts are no such word. */
const WORD_MAX = 64;

/** What the text of a message asks for; null = nothing of this kind. */
export function askOf(text: string, words: OptOutWords = OPT_OUT_WORDS): 'stop' | 'start' | null {
  if (text.length > WORD_MAX) return null;
  const word = text
    .normalize('NFKC')
    .toLowerCase()
    // What is no letter or digit stands between words.
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();
  if (words.stop.includes(word)) return 'stop';
  return words.start.includes(word) ? 'start' : null;
}

/** A sender as opt-outs are kept under it: digits without `+`, names without regard to case. '' = any sender. */
export function senderKey(sender: string): string {
  const bare = sender.trim().toLowerCase();
  return /^\+\d+$/.test(bare) ? bare.slice(1) : bare;
}

/** 603 EC_CONTENT_BLOCKED: the user opted out. */
export const OPT_OUT_ERROR = 603;

/** 10 REJECTED_DND for one sender's opt-out, 14 REJECTED_DESTINATION_BLOCKLISTED where none of the account's may write. */
export function optOutStatus(sender: string): 10 | 14 {
  return sender === '' ? 14 : 10;
}
