/**
 * Which lane a destination takes. Pure: the table is an argument, made by main from the configuration. One rule for now:
 * configured carriers in their order, the first takes all; the sandbox takes all while no carrier is configured
 * (design 5, sandbox). Rules by prefix and sender join here.
 */

export interface Routing {
  /** Lane of the first choice; null = no route (status 19 with 15023). */
  laneFor(to: string): number | null;
}

/** `lanes`: carriers' lanes in order of preference; empty = nothing is routable. */
export function createRouting(lanes: readonly number[]): Routing {
  const first = lanes[0] ?? null;
  return { laneFor: () => first };
}
