/**
 * The number table that the operator gives: how numbers begin -> the network they belong to (MCC and MNC). Pure.
 *
 * Promises: the longest beginning wins; a look-up takes at most as many steps as there are lengths in the table (15).
 * Fails: a number that nothing in the table begins has no network: a value.
 */

/** Networks by number. */
export interface Networks {
  /** MCC and MNC, like `26201`; null = not in the table. `to` in digits. */
  of(to: string): string | null;
}

/** `table`: beginning (digits, a leading `+` is ignored) -> MCC and MNC. */
export function createNetworks(table: Readonly<Record<string, string>>): Networks {
  const known = new Map<string, string>();
  for (const beginning of Object.keys(table)) known.set(beginning.replace('+', ''), table[beginning] as string);
  const lengths = [...new Set([...known.keys()].map((beginning) => beginning.length))].sort((a, b) => b - a);
  return {
    of(to) {
      for (const length of lengths) {
        const network = to.length >= length ? known.get(to.slice(0, length)) : undefined;
        if (network !== undefined) return network;
      }
      return null;
    },
  };
}

/** Beginnings in a file at most. */
export const NETWORKS_MAX = 2_000_000;

/**
 * A number table as text: a line each, `BEGINNING,MCCMNC` (also with `;` or a tab); blank lines, lines that begin with `#` and a
 * first line of names are passed over. `mistakes` says line by line what is wrong, at most 20.
 */
export function readNetworks(
  text: string,
): { ok: true; table: Record<string, string> } | { ok: false; mistakes: string[] } {
  const table: Record<string, string> = {};
  const mistakes: string[] = [];
  let count = 0;
  text.split('\n').forEach((raw, index) => {
    const line = raw.trim();
    if (line === '' || line.startsWith('#') || mistakes.length >= 20) return;
    const [beginning = '', network = ''] = line.split(/[,;\t]/).map((cell) => cell.trim().replace(/^"(.*)"$/, '$1'));
    if (/^\+?\d{1,15}$/.test(beginning) && /^\d{5,6}$/.test(network)) {
      count++;
      if (count <= NETWORKS_MAX) table[beginning.replace('+', '')] = network;
    } else if (!(index === 0 && /^[A-Za-z]/.test(beginning))) {
      mistakes.push(`line ${index + 1}: must be the beginning of numbers and a network, like 4917,26201`);
    }
  });
  if (count > NETWORKS_MAX) mistakes.push(`more than ${NETWORKS_MAX} lines`);
  return mistakes.length > 0 ? { ok: false, mistakes } : { ok: true, table };
}
