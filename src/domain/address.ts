/**
 * Addresses as customers write them: whom a message goes to and who sends it.
 *
 * Promises: pure; one pass over the text, no regular expression that can backtrack; a string of any length and content gets
 * an answer. A number that comes out has only ASCII digits. What cannot be an address is a value with the status that tells
 * the customer so (ids of the status table), never an error.
 *
 * Strict on purpose: spaces, dashes, brackets, direction marks and digits of other scripts are refused, not repaired. A
 * repair that guesses wrong sends somebody's message to a stranger.
 */

/** 51 = missing, 8 = written in national form, 52 = not an address. */
export type DestinationFault = 51 | 8 | 52;

/** E.164 allows 15 digits; below 7 only short codes exist. */
const MIN_DIGITS = 7;
const MAX_DIGITS = 15;

/**
 * Reads `to`. Good is an optional `+` or `00` and then 7 to 15 ASCII digits that do not begin with 0 (no country code does),
 * or exactly one of `shortCodes`. `number` is what carriers get: digits without prefix.
 */
export function parseDestination(
  to: string,
  shortCodes?: ReadonlySet<string>,
): { ok: true; number: string } | { ok: false; status: DestinationFault } {
  if (shortCodes?.has(to)) return { ok: true, number: to };
  // The longest good spelling is 00 and 15 digits: longer text is only asked whether it is blank.
  if (to.length > MAX_DIGITS + 2 || to.length < MIN_DIGITS) {
    return { ok: false, status: to.trim() === '' ? 51 : 52 };
  }
  const start = to.startsWith('+') ? 1 : to.startsWith('00') ? 2 : 0;
  if (!digitsFrom(to, start)) return { ok: false, status: to.trim() === '' ? 51 : 52 };
  const length = to.length - start;
  if (length < MIN_DIGITS || length > MAX_DIGITS) return { ok: false, status: 52 };
  if (to[start] === '0') return { ok: false, status: start === 0 ? 8 : 52 };
  return { ok: true, number: start === 0 ? to : to.slice(start) };
}

/** Digits as carriers write them, without the `00` before a whole number. All else (short codes, names) is as it was. */
export function international(digits: string): string {
  return /^00[1-9]\d{6,14}$/.test(digits) ? digits.slice(2) : digits;
}

/** Letters of the GSM 03.38 default alphabet beyond A-Z and a-z: all that a handset is sure to show in a sender. */
const GSM_LETTERS = new Set('èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉÄÖÑÜäöñüà');

/**
 * Reads `sender`. Good is an optional `+` and 3 to 15 ASCII digits (returned without `+`), or 3 to 11 GSM letters, digits,
 * spaces and `.-_&` of which one at least is a letter (returned as written). All else is status 11.
 */
export function parseSender(
  sender: string,
): { ok: true; sender: string; kind: 'number' | 'alphanumeric' } | { ok: false; status: 11 } {
  const start = sender.startsWith('+') ? 1 : 0;
  const length = sender.length - start;
  if (length >= 3 && length <= MAX_DIGITS && digitsFrom(sender, start)) {
    return { ok: true, sender: sender.slice(start), kind: 'number' };
  }
  // Every allowed character is one UTF-16 unit, so length counts characters.
  if (sender.length < 3 || sender.length > 11) return { ok: false, status: 11 };
  let letters = 0;
  for (const char of sender) {
    if (isLetter(char)) letters++;
    else if (!(char >= '0' && char <= '9') && !' .-_&'.includes(char)) return { ok: false, status: 11 };
  }
  return letters > 0 ? { ok: true, sender, kind: 'alphanumeric' } : { ok: false, status: 11 };
}

/**
 * A number as it may stand in a log: country and operator recognisable, the subscriber not (`447700900123` becomes
 * `4477******23`). Anything that is not a number becomes `***`, since a mistyped `to` may hold any private text.
 */
export function masked(number: string): string {
  const digits = number.startsWith('+') ? number.slice(1) : number;
  if (digits.length > MAX_DIGITS + 2 || digits.length === 0 || !digitsFrom(digits, 0)) return '***';
  const head = Math.min(4, Math.floor(digits.length / 3));
  const tail = Math.min(2, Math.floor(digits.length / 6));
  return digits.slice(0, head) + '*'.repeat(digits.length - head - tail) + digits.slice(digits.length - tail);
}

function isLetter(char: string): boolean {
  return (char >= 'a' && char <= 'z') || (char >= 'A' && char <= 'Z') || GSM_LETTERS.has(char);
}

/** Whether all of `text` from `start` on is ASCII digits (true when nothing is left). */
function digitsFrom(text: string, start: number): boolean {
  for (let i = start; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 48 || code > 57) return false;
  }
  return true;
}
