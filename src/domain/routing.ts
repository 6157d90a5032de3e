/**
 * Which lane a destination takes. Pure: the lanes are an argument, made by main from the configuration. One rule for now: the
 * first carrier takes all. Rules by prefix and sender join here.
 *
 * A carrier may have several lanes, so that several nodes can share its work; destinations spread over them evenly.
 *
 * Promises: the same destination takes the same lane as long as the configuration stands. Fails: no lane at all is a value.
 */

/** Lanes by destination. */
export interface Routing {
  /** Lane of the first choice; null = no route (status 19 with 15023). */
  laneFor(to: string): number | null;
  /** One lane of a carrier that takes all of `members`; null = there is none. */
  laneForAll(members: readonly string[]): number | null;
}

/** `carriers`: the lanes of each, in order of preference; empty = nothing is routable. */
export function createRouting(carriers: readonly (readonly number[])[]): Routing {
  const lanes = carriers[0] ?? [];
  const laneFor = (to: string): number | null => lanes[lanes.length < 2 ? 0 : hash(to) % lanes.length] ?? null;
  return { laneFor, laneForAll: (members) => laneFor(members[0] ?? '') };
}

/** FNV-1a: spreads consecutive numbers, which is what campaigns have. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
