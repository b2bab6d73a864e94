// Candles and coverage of one stretch of one series: read in pieces, grown at both ends, bounded.

import { get, seriesPath } from "./api.js";
import { estimatePlan } from "./jobs.js";
import { askable, clip, join, STORED } from "./windows.js";

const MOST_SLOTS_IN_DETAIL = 100_000;
const FEW_PAGES = 5;
// The smallest page of any exchange: so many slots certainly lie in few pages.
const SMALLEST_PAGE = 300;
const AT_ONCE = 4;

export class History {
  constructor(series, grid) {
    this.series = series;
    this.grid = grid;
    this.clear();
  }

  clear() {
    this.start = this.end = null;
    this.rows = [];
    this.windows = [];
    this.settledUntil = null;
  }

  get isEmpty() {
    return this.start === null;
  }

  /** Return the slots from `start` to `end`, however many of them have candles. */
  get slots() {
    return this.isEmpty ? 0 : this.grid.count(this.start, this.end);
  }

  /** Load what is stored of a range; one apart from what is loaded replaces it. Nothing is filled. */
  async load(from, to, signal) {
    const isApart = this.isEmpty || from > this.end || to < this.start;
    if (isApart) return this.take(await this.readStored(from, to, signal), { replaces: true });
    if (from < this.start) this.take(await this.readStored(from, this.start, signal));
    if (to > this.end) this.take(await this.readStored(this.end, to, signal));
    return undefined;
  }

  /** Read `[start, end)` once more, e.g. after it was fetched. */
  async reload(start, end, signal) {
    const [from, to] = [Math.max(start, this.start), Math.min(end, this.end)];
    if (from < to) this.take(await this.readStored(from, to, signal), { isInside: true });
  }

  /** Return the gaps of a range that were neither answered nor refused. */
  gaps(from, to) {
    return clip(this.windows, from, to).filter((each) => each.state === "not_fetched" && !each.isProvisional);
  }

  take(piece, { replaces = false, isInside = false } = {}) {
    if (replaces) this.clear();
    const { start, end, rows, windows, settledUntil } = piece;
    if (this.isEmpty) Object.assign(this, { start, end, rows, windows });
    else this.splice(start, end, rows, windows);
    if (!isInside) {
      this.start = Math.min(this.start, start);
      this.end = Math.max(this.end, end);
    }
    if (settledUntil !== null) this.settledUntil = Math.max(this.settledUntil ?? 0, settledUntil);
  }

  splice(start, end, rows, windows) {
    const before = this.rows.slice(0, this.indexOf(start));
    this.rows = [...before, ...rows, ...this.rows.slice(this.indexOf(end))];
    const [left, right] = [clip(this.windows, 0, start), clip(this.windows, end, Infinity)];
    this.windows = join([...left, ...windows, ...right]);
  }

  /** Return how many rows open before a time. */
  indexOf(time) {
    let [low, high] = [0, this.rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle][0] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Drop what lies outside `[start, end)`. */
  trim(start, end) {
    this.rows = this.rows.slice(this.indexOf(start), this.indexOf(end));
    this.windows = clip(this.windows, start, end);
    this.start = Math.max(this.start, start);
    this.end = Math.min(this.end, end);
  }

  /** Read coverage first, then the candles of what is covered. */
  async readStored(start, end, signal) {
    const piece = await this.piece(start, end, signal);
    await this.readRows(piece, (each) => STORED.has(each.state), signal);
    return piece;
  }

  /** Have the gaps of a range fetched by asking for its candles. Throws Problem. */
  async fill(start, end, signal) {
    const gaps = this.gaps(start, end);
    const asked = { rows: [], windows: gaps, settledUntil: null };
    await this.readRows(asked, () => true, signal);
    const piece = await this.piece(gaps[0].start, gaps.at(-1).end, signal);
    await this.readRows(piece, (each) => STORED.has(each.state), signal);
    addProvisional(piece, asked);
    this.take(piece, { isInside: true });
  }

  async piece(start, end, signal) {
    const windows = await this.coverage(start, end, signal);
    return { start, end: Math.max(start, windows.at(-1)?.end ?? start), rows: [], windows, settledUntil: null };
  }

  async readRows(piece, isAsked, signal) {
    const parts = askable(piece.windows, isAsked).filter(({ run }) => run.some((each) => each.state !== "no_candles"));
    for (let done = 0; done < parts.length; done += AT_ONCE) {
      const bodies = await Promise.all(parts.slice(done, done + AT_ONCE).map((part) => this.candles(part, signal)));
      for (const body of bodies) {
        piece.rows = piece.rows.concat(body.candles);
        piece.settledUntil = Math.max(piece.settledUntil ?? 0, body.settled_until);
      }
    }
    if (piece.rows.length) this.grid.alignTo(piece.rows[0][0]);
  }

  candles({ start, end }, signal) {
    return get(seriesPath("candles", this.series), { start, end }, signal);
  }

  /** Read coverage slot by slot, where the service does that, else as a whole. */
  async coverage(start, end, signal) {
    const path = seriesPath("coverage", this.series);
    const detail = this.grid.count(start, end) <= MOST_SLOTS_IN_DETAIL;
    const found = [];
    let page = await get(path, { start, end, ...(detail && { detail }) }, signal);
    found.push(...page.windows);
    while (page.next) {
      page = await get(page.next, {}, signal);
      found.push(...page.windows);
    }
    return join(found);
  }

  /** Tell whether gaps take less than five pages: by their length, or by the service's plan. */
  async isSmall(gaps, signal) {
    const pages = gaps.map((each) => Math.ceil(this.grid.count(each.start, each.end) / SMALLEST_PAGE) + 1);
    if (pages.reduce((sum, each) => sum + each, 0) < FEW_PAGES) return true;
    const plan = await estimatePlan(this.series, gaps[0].start, gaps.at(-1).end, signal).catch((error) => {
      if (error.name === "AbortError") throw error;
      return null;
    });
    return plan !== null && plan.estimate.pages < FEW_PAGES;
  }
}

/** Add what was answered and is not stored, since the exchange may still change it. */
function addProvisional(piece, asked) {
  for (const each of piece.windows) {
    if (each.state !== "not_fetched") continue;
    each.isProvisional = asked.windows.some((gap) => gap.start <= each.start && each.end <= gap.end);
    if (!each.isProvisional) continue;
    piece.rows = piece.rows.concat(asked.rows.filter(([open]) => open >= each.start && open < each.end));
    piece.settledUntil = asked.settledUntil;
  }
  piece.rows.sort(([a], [b]) => a - b);
}
