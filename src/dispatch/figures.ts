/**
 * The figures of lanes, as the metrics page shows them: one row a carrier. Pure.
 */

/** Of a lane, or of all lanes of a carrier. `inFlight`: slots taken; `blocked`: pause or open breaker. */
export interface Figures {
  lane: string;
  inFlight: number;
  outcomes: Record<string, number>;
  blocked: boolean;
}

/** `byCarrier` sums into what it is given. */
export function copied(figures: Figures): Figures {
  return { ...figures, outcomes: { ...figures.outcomes } };
}

/** A carrier's lanes are one to those who look from outside; it is blocked when one of them is. */
export function byCarrier(lanes: Figures[]): Figures[] {
  const sums = new Map<string, Figures>();
  for (const lane of lanes) {
    const sum = sums.get(lane.lane);
    if (!sum) {
      sums.set(lane.lane, lane);
      continue;
    }
    sum.inFlight += lane.inFlight;
    sum.blocked ||= lane.blocked;
    for (const [kind, count] of Object.entries(lane.outcomes)) sum.outcomes[kind] = (sum.outcomes[kind] ?? 0) + count;
  }
  return [...sums.values()];
}
