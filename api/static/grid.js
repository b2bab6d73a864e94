// Slots of a series: whole numbers for open times, so that gaps have a width.

const MONTHS_A_YEAR = 12;

/** A grid of equal steps, or of calendar months; times in ms, UTC. */
export class Grid {
  constructor({ step_ms: step, phase_ms: phase = 0, unit, phase_varies: varies = false }) {
    this.isMonthly = unit === "month";
    this.step = this.isMonthly ? 30 * 86_400_000 : step;
    this.phase = phase;
    this.varies = varies;
  }

  /** Move the phase to that of a time known to be an open time. */
  alignTo(open) {
    if (this.varies) this.phase = open % this.step;
  }

  /** Return the index of the slot that a time lies in. */
  index(ms) {
    if (!this.isMonthly) return Math.floor((ms - this.phase) / this.step);
    const date = new Date(ms);
    return date.getUTCFullYear() * MONTHS_A_YEAR + date.getUTCMonth();
  }

  at(index) {
    if (!this.isMonthly) return index * this.step + this.phase;
    return Date.UTC(Math.floor(index / MONTHS_A_YEAR), index % MONTHS_A_YEAR);
  }

  floor(ms) {
    return this.at(this.index(ms));
  }

  ceil(ms) {
    const floor = this.floor(ms);
    return floor === ms ? ms : this.next(floor);
  }

  next(open) {
    return this.at(this.index(open) + 1);
  }

  /** Count the slots that open in `[start, end)`. */
  count(start, end) {
    return Math.max(0, this.index(this.ceil(end)) - this.index(this.ceil(start)));
  }
}
