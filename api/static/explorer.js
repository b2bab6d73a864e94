// The view of one series: holds what is on the screen, and brings everything else in line with it.

import { addressOf, writeAddress } from "./permalink.js";
import { findMarket, findSymbol, readMarkets } from "./catalog.js";
import { Chart } from "./chart.js";
import { byId, element, mark, show, write } from "./dom.js";
import { clearProblem, showProblem } from "./errors.js";
import { FetchPanel } from "./fetching.js";
import { count, digitsOf, period, price, time, volume } from "./format.js";
import { History } from "./history.js";
import { drawInformation, readWhole } from "./information.js";
import { Live } from "./live.js";
import { nameInSearch, setUpSearch } from "./search.js";
import { drawStrip } from "./strip.js";
import { setUpTaking } from "./taking.js";
import { Problem } from "./api.js";
import { STORED } from "./windows.js";

const DEFAULT = { exchange: "binance", market_type: "perp", symbol: "BTC-USDT", interval: "1h" };
const MOST_LOADED = 30_000;
const ENOUGH_LOADED = 10_000;
const MOST_OF_A_PERMALINK = 300_000;
const PIXELS_A_BAR = 5;
const ROOM_AFTER_NEWEST = 3;
const SHORTEST_CHUNK = 1_500;
const SETTLED_MS = 180;
const LONGEST_RETRY_SECONDS = 10;
const MOST_QUIET_SLOTS = 60;
const UNKNOWN_DIGITS = 6;
const ROWS_LOOKED_AT = 200;

export class Explorer {
  constructor() {
    this.series = null;
    this.history = null;
    this.isFollowing = false;
    this.live = new Live((candle) => this.take(candle));
    this.panel = new FetchPanel({
      onFetched: (history, stretch) => this.fetched(history, stretch),
      onProblem: (problem) => this.tell(problem),
    });
    setUpSearch((hit) => this.choose(hit), () => this.series?.exchange);
    setUpTaking(() => this.taken(), { onProblem: (problem) => this.tell(problem), onBusy: (words) => this.busy(words) });
    byId("interval").addEventListener("change", (event) => this.chooseInterval(event.target.value));
    byId("newest").addEventListener("click", () => this.goToNewest());
    byId("date-form").addEventListener("submit", (event) => event.preventDefault());
    byId("date").addEventListener("change", () => this.goToDate(byId("date").valueAsNumber));
    byId("chart").addEventListener("keydown", (event) => event.key === "End" && this.goToNewest());
  }

  /** Leave the view: nothing is asked for any more. */
  leave() {
    this.controller?.abort();
    this.followed = null;
    this.live.follow(null);
    clearTimeout(this.timer);
    clearTimeout(this.retry);
  }

  /** Show what an address says; parts that are missing are filled in. */
  async open({ series, range, problems }, { replaces = true } = {}) {
    this.leave();
    clearProblem();
    this.controller = new AbortController();
    const { signal } = this.controller;
    const wanted = { ...DEFAULT, ...pick(series) };
    this.isFollowing = range === null;
    this.failures = 0;
    this.isResting = false;
    this.refused = null;
    this.isMoved = false;
    writeAddress(addressOf(wanted, range), { replaces });
    try {
      await this.openSeries(wanted, range, signal);
      writeAddress(addressOf(this.series, this.range), { replaces: true });
      document.title = `${this.series.symbol} ${this.series.interval} · ${this.series.exchange} · Candle store`;
      if (problems.length) this.tell(new Problem({ code: "address", detail: `${problems.join("; ")}. The newest candles are shown instead` }));
      await this.load(signal);
    } catch (problem) {
      this.failed(problem, () => this.open({ series: wanted, range, problems }, { replaces }));
    }
  }

  async openSeries(wanted, range, signal) {
    this.series = wanted;
    this.clear();
    this.head(wanted);
    const { market, grid } = await findMarket(wanted);
    if (signal.aborted) throw new DOMException("left", "AbortError");
    await this.drawIntervals(wanted, market, grid);
    const [whole, symbol] = await Promise.all([readWhole(wanted, signal), findSymbol(wanted)]);
    if (signal.aborted) throw new DOMException("left", "AbortError");
    // An address may have the exchange's own name.
    const series = { ...wanted, symbol: symbol?.symbol ?? wanted.symbol };
    Object.assign(this, { market, grid, symbol, series, history: new History(series, grid) });
    this.head(series);
    drawInformation(series, symbol, whole, grid);
    this.closedUntil = whole.at(-1)?.end ?? grid.floor(Date.now());
    this.range = this.allowed(range ?? this.newest());
    this.chart ??= this.makeChart();
    const slots = grid.count(this.range.from, this.range.to);
    this.most = Math.max(MOST_LOADED, slots);
    this.chart.open(this.history, { mostVisible: slots });
    this.setScale(digitsOf(symbol?.tick_size));
    this.chart.show(this.range);
    this.panel.offer(this.history, null);
    this.legend(null);
  }

  /** Take the last series off the screen: nothing of it may be taken for the next one's. */
  clear() {
    this.history = this.symbol = null;
    this.chart?.clear();
    this.panel.offer(null, null);
    byId("symbol-info").replaceChildren();
    byId("coverage-strip").replaceChildren();
    byId("settled-until").textContent = "Nothing loaded yet.";
    mark(byId("settled-until"), "data-time", null);
    byId("visible").textContent = "";
    show(byId("chart-note"), false);
    show(byId("holes-section"), false);
    this.legend(null);
  }

  /** Write prices with so many digits; null until candles tell how many there are. */
  setScale(digits) {
    this.digits = digits;
    this.chart.setDigits(digits ?? UNKNOWN_DIGITS);
  }

  makeChart() {
    if (!window.LightweightCharts) {
      throw new Problem({ code: "set-up", detail: "The chart's library is not in place on the server: `make setup` puts it there." });
    }
    return new Chart(byId("chart"), {
      onMove: (range) => this.moved(range),
      onScroll: () => this.scrolled(),
      onHover: (row) => this.legend(row),
    });
  }

  head({ exchange, market_type: market, symbol, interval }) {
    byId("title").replaceChildren(symbol, element("small", {}, `${exchange} ${market} · ${interval}`));
    mark(byId("chart"), "aria-label", `Candles of ${symbol} ${interval}, ${exchange} ${market}`);
    nameInSearch(symbol);
  }

  async drawIntervals(wanted, market, grid) {
    const offered = market?.intervals.map((each) => each.interval) ?? [];
    byId("interval").replaceChildren(...offered.map((each) => element("option", { value: each, selected: each === wanted.interval }, each)));
    if (!market) await this.refuseMarket(wanted);
    if (grid) return;
    const detail = `${wanted.exchange} publishes no ${wanted.interval} candles; there are ${offered.join(", ")}`;
    throw new Problem({ code: "unsupported_interval", detail, body: { supported: offered } });
  }

  async refuseMarket({ exchange, market_type: market }) {
    const markets = await readMarkets();
    const isKnown = markets.some((each) => each.exchange === exchange);
    const known = markets.map((each) => `${each.exchange} ${each.market_type}`).join(", ");
    const what = isKnown ? `${exchange} has no ${market} market here` : `There is no exchange ${exchange} here`;
    throw new Problem({ code: isKnown ? "unknown_market_type" : "unknown_exchange", detail: `${what}; there are ${known}. Search for a symbol to go on` });
  }

  /** Bring a range of an address down to what a browser can draw. */
  allowed(range) {
    const slots = this.grid.count(range.from, range.to);
    if (slots >= 1 && slots <= MOST_OF_A_PERMALINK) return range;
    if (slots < 1) return { from: this.grid.floor(range.from), to: this.grid.next(this.grid.floor(range.from)) };
    const last = this.grid.index(range.to);
    this.tell(new Problem({
      code: "address",
      detail: `${count(slots)} candles are more than a chart can show: these are the last ${count(MOST_OF_A_PERMALINK)}. A longer interval shows them all`,
    }));
    return { from: this.grid.at(last - MOST_OF_A_PERMALINK), to: range.to };
  }

  newest() {
    const width = byId("chart").clientWidth || 800;
    const bars = Math.min(Math.max(Math.round(width / PIXELS_A_BAR), 40), 400);
    const end = this.grid.index(this.closedUntil) + 1 + ROOM_AFTER_NEWEST;
    return { from: this.grid.at(end - bars), to: this.grid.at(end) };
  }

  // --- loading --------------------------------------------------------------------------------

  /** Load what the range lacks, one piece after another; asked for again meanwhile, once more. */
  async load(signal = this.controller.signal) {
    if (this.loading === signal) {
      this.isAskedAgain = true;
      return;
    }
    this.loading = signal;
    this.busy("Loading…");
    try {
      do {
        this.isAskedAgain = false;
        await this.loadOnce(signal);
      } while (this.isAskedAgain && !signal.aborted);
    } finally {
      this.loaded(signal);
    }
  }

  /** Let the next load begin, unless another view has begun its own. */
  loaded(signal) {
    if (this.loading !== signal) return;
    this.loading = null;
    this.busy("");
    if (this.history && !this.history.isEmpty) this.note();
  }

  async loadOnce(signal) {
    const { history } = this;
    const target = this.target();
    if (target) {
      await history.load(target.from, target.to, signal);
      if (signal.aborted) return;
      if (!this.refused) this.worked();
      if (this.digits === null && history.rows.length) this.setScale(digitsSeen(history.rows));
      this.chart.draw();
      this.isAskedAgain = this.isMoved;
    }
    await this.fillVisible(history, signal);
    if (signal.aborted) return;
    this.bringInLine();
    this.followEdge();
  }

  /** Return what to load next: the range at first; after a move, one chunk more on that side. */
  target() {
    const { history, range, grid } = this;
    if (history.isEmpty || range.from > history.end || range.to < history.start) return range;
    const { margin, chunk } = this.spare();
    const [first, last] = [grid.index(history.start), grid.index(history.end)];
    const [from, to] = [grid.index(range.from), grid.index(grid.ceil(range.to))];
    if (from - margin < first && !this.isAtBeginning) return this.room({ from: grid.at(Math.min(from, first) - chunk), to: history.end });
    if (to + margin > last && history.end < this.edge()) {
      return this.room({ from: history.start, to: Math.min(grid.at(Math.max(to, last) + chunk), this.edge()) });
    }
    return null;
  }

  /** Return how many slots to have beside the range, and to load at once: never so many that one
   * side's load drops what the other side needs. */
  spare() {
    if (!this.isMoved) return { margin: 0, chunk: 0 };
    const slots = this.grid.count(this.range.from, this.range.to);
    const room = Math.max(0, this.most - slots);
    return {
      margin: Math.min(Math.max(50, Math.round(slots * 0.75)), Math.floor(room / 4)),
      chunk: Math.min(Math.max(SHORTEST_CHUNK, slots), Math.floor(room / 2)),
    };
  }

  get isAtBeginning() {
    return this.history.windows[0]?.state === "before_history";
  }

  edge() {
    return Math.max(this.closedUntil, this.history.end);
  }

  /** Drop the far side where a load would be too much; during a drag that would make a jump. */
  room(target) {
    const { history, range, grid, most } = this;
    const slots = grid.count(target.from, target.to);
    // Fewer candles are drawn faster; during a drag they can't go, and there may be more.
    const enough = Math.min(most, Math.max(ENOUGH_LOADED, 4 * grid.count(range.from, range.to)));
    const excess = slots - (this.chart.pointerIsDown ? most : enough);
    if (excess <= 0) return target;
    if (this.chart.pointerIsDown) return null;
    if (target.from < history.start) history.trim(history.start, Math.max(grid.at(grid.index(history.end) - excess), grid.ceil(range.to)));
    else history.trim(Math.min(grid.at(grid.index(history.start) + excess), grid.floor(range.from)), history.end);
    return { from: Math.min(target.from, history.start), to: target.from < history.start ? history.end : target.to };
  }

  /** Have small visible gaps fetched at once; offer to fetch a large one. */
  async fillVisible(history, signal) {
    const gaps = history.gaps(this.range.from, this.range.to).filter((each) => !this.isRefused(each));
    if (gaps.length && (await history.isSmall(gaps, signal))) {
      try {
        await history.fill(this.range.from, this.range.to, signal);
        this.worked();
        if (this.chart && !signal.aborted) this.chart.draw();
        this.reviewInformation();
      } catch (problem) {
        if (problem.name === "AbortError" || problem.status === 401) throw problem;
        await history.reload(gaps[0].start, gaps.at(-1).end, signal).catch(() => {});
        this.chart.draw();
        this.bringInLine();
        this.refuse(gaps, problem);
      }
    }
    if (signal.aborted) return;
    const left = history.gaps(this.range.from, this.range.to);
    this.panel.offer(history, left.length ? { start: left[0].start, end: left.at(-1).end } : null);
  }

  isRefused = (gap) => this.refused?.history === this.history && this.refused.gaps.some((each) => each.start < gap.end && gap.start < each.end);

  /** Remember what could not be had, and try again when the service says so. */
  refuse(gaps, problem) {
    this.refused = { history: this.history, gaps };
    this.tell(problem);
    this.again(problem, () => {
      this.refused = null;
      this.load().catch((error) => this.failed(error));
    });
  }

  /** Try again, each time later than the last; the words stay until it works. */
  again(problem, action) {
    clearTimeout(this.retry);
    if (!problem.retryAfter) return;
    this.failures = (this.failures ?? 0) + 1;
    this.isResting = true;
    const patience = Math.min(2 ** this.failures, LONGEST_RETRY_SECONDS);
    const wait = problem.code === "unreachable" ? patience : Math.max(problem.retryAfter, patience);
    this.retry = setTimeout(() => {
      this.isResting = false;
      action();
    }, 1000 * wait);
  }

  /** Take back the words of a failure that is over. */
  worked() {
    this.isResting = false;
    if (!this.failures) return;
    this.failures = 0;
    clearProblem();
  }

  failed(problem, retry = () => this.load().catch((error) => this.failed(error))) {
    if (problem.name === "AbortError") return;
    this.tell(problem);
    if (problem.status === 401) return;
    this.again(problem, retry);
  }

  tell(problem) {
    const near = (problem.body?.near ?? []).slice(0, 5).map((name) => [name, () => this.change({ symbol: name })]);
    const supported = (problem.body?.supported ?? []).map((name) => [name, () => this.change({ interval: name })]);
    showProblem(problem, [...near, ...supported]);
  }

  busy(words) {
    byId("busy").textContent = words;
  }

  // --- what the user does ---------------------------------------------------------------------

  /** Open another series; the range stays where it can. */
  change(changes, range = null) {
    return this.open({ series: { ...this.series, ...changes }, range, problems: [] }, { replaces: false });
  }

  async choose({ exchange, market_type: market, symbol }) {
    const { market: found } = await findMarket({ exchange, market_type: market });
    const offered = found?.intervals.map((each) => each.interval) ?? [];
    const interval = offered.includes(this.series.interval) ? this.series.interval : offered.at(-1);
    byId("chart").focus({ preventScroll: true });
    await this.change({ exchange, market_type: market, symbol, interval });
  }

  /** Keep the middle of what is on the screen, unless that is the newest. */
  async chooseInterval(interval) {
    if (this.isFollowing || !this.grid) return this.change({ interval });
    const middle = (this.range.from + this.range.to) / 2;
    const { grid } = await findMarket({ ...this.series, interval });
    const half = Math.round(grid.count(0, grid.step * 240) / 2);
    const centre = grid.index(middle);
    return this.change({ interval }, { from: grid.at(centre - half), to: grid.at(centre + half) });
  }

  goToNewest() {
    if (!this.history) return undefined;
    this.isFollowing = true;
    return this.go(this.newest());
  }

  /** Put a day at the left side, with as many slots as were visible. */
  goToDate(day) {
    if (!Number.isFinite(day) || !this.history) return undefined;
    this.isFollowing = false;
    const slots = this.grid.count(this.range.from, this.range.to);
    const from = this.grid.index(this.grid.ceil(day));
    return this.go({ from: this.grid.at(from), to: this.grid.at(from + slots) });
  }

  async go(range) {
    this.range = range;
    this.isMoved = true;
    this.chart.show(range);
    writeAddress(addressOf(this.series, range));
    await this.load().catch((error) => this.failed(error));
  }

  /** Take a range that the user moved to. */
  moved(range) {
    this.range = range;
    this.isMoved = true;
    this.isFollowing = range.to > this.closedUntil;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.settled(), SETTLED_MS);
  }

  settled() {
    if (this.chart.pointerIsDown) {
      this.timer = setTimeout(() => this.settled(), SETTLED_MS);
      return;
    }
    writeAddress(addressOf(this.series, this.range));
    this.load().catch((error) => this.failed(error));
  }

  /** Follow each frame of a move: the strip at once, older candles before they are seen. */
  scrolled() {
    if (!this.history || this.history.isEmpty) return;
    this.bringInLine();
    if (this.isMoved && !this.loading && !this.isResting && this.target()) this.load().catch((error) => this.failed(error));
  }

  // --- what the service does ------------------------------------------------------------------

  followEdge() {
    const { history, grid } = this;
    const lastRow = history.rows.at(-1)?.[0] ?? 0;
    // A series without candles of late has none that is forming.
    const isTraded = grid.count(lastRow, history.end) <= MOST_QUIET_SLOTS;
    const isAtEdge = history.end >= this.closedUntil && isTraded;
    const wanted = isAtEdge && !this.controller.signal.aborted ? this.series : null;
    if (wanted === this.followed) return;
    this.followed = wanted;
    this.live.follow(wanted, this.grid.step);
  }

  /** Take the forming candle; a new one means that the one before it has closed. */
  async take(candle) {
    const { history, controller } = this;
    if (!history || history.isEmpty || this.loading) return;
    if (candle.time > history.end) await this.extend(candle.time, controller.signal).catch((error) => this.failed(error));
    if (controller.signal.aborted || history !== this.history) return;
    this.chart.setForming(candle);
    this.legend(null);
  }

  async extend(end, signal) {
    const { history, grid } = this;
    this.loading = signal;
    try {
      const [start, newSlots] = [history.end, grid.count(this.closedUntil, end)];
      await history.load(history.start, end, signal);
      const gaps = history.gaps(start, end);
      if (gaps.length && (await history.isSmall(gaps, signal))) await history.fill(start, end, signal);
      this.closedUntil = Math.max(this.closedUntil, end);
      if (this.isFollowing && newSlots) this.shift(newSlots);
      this.chart.draw();
      this.bringInLine();
    } finally {
      this.loaded(signal);
    }
  }

  shift(slots) {
    const { grid, range } = this;
    this.range = { from: grid.at(grid.index(range.from) + slots), to: grid.at(grid.index(grid.ceil(range.to)) + slots) };
    this.chart.range = this.range;
    writeAddress(addressOf(this.series, this.range), { replaces: true });
  }

  /** Show what a fetch brought. */
  async fetched(history, { start, end }) {
    if (history !== this.history) return;
    try {
      await history.reload(start, end, this.controller.signal);
      this.chart.draw();
      await this.fillVisible(history, this.controller.signal);
    } catch (problem) {
      this.failed(problem);
    }
    this.bringInLine();
    await this.reviewInformation();
  }

  async reviewInformation() {
    const { series, grid, symbol, controller } = this;
    const whole = await readWhole(series, controller.signal).catch(() => null);
    if (whole && series === this.series) drawInformation(series, symbol, whole, grid);
  }

  // --- what is drawn around the chart ---------------------------------------------------------

  bringInLine() {
    const visible = this.chart.visible();
    if (visible) drawStrip(this.history, this.range, visible, this.chart.width());
    const { settledUntil } = this.history;
    mark(byId("settled-until"), "data-time", settledUntil);
    write(byId("settled-until"), this.settledWords());
    write(byId("visible"), `${period(this.range.from, this.range.to)} UTC`);
    this.note();
    if (!this.hovers) this.legend(null);
  }

  settledWords() {
    const { settledUntil, rows } = this.history;
    if (settledUntil === null) return "No candles loaded here.";
    const isLater = (rows.length && rows.at(-1)[0] >= settledUntil) || this.chart.forming;
    const rest = isLater ? "later candles are drawn lighter: they may still change" : "no candle shown here will change";
    return `Settled until ${time(settledUntil)} UTC; ${rest}.`;
  }

  /** Say in the middle of an empty chart why it is empty. */
  note() {
    const { history, range } = this;
    const isEmpty = history.indexOf(range.from) === history.indexOf(range.to);
    const states = new Set(history.windows.filter((each) => each.end > range.from && each.start < range.to).map((each) => each.state));
    const words = !isEmpty || this.loading ? "" : emptyWords(states);
    write(byId("chart-note"), words);
    show(byId("chart-note"), words !== "");
  }

  legend(row) {
    this.hovers = row !== null;
    const shown = row ?? this.chart?.forming ?? this.history?.rows.at(-1) ?? null;
    if (shown === this.shown) return;
    this.shown = shown;
    byId("legend").replaceChildren(...(shown ? legendOf(shown, this.digits ?? UNKNOWN_DIGITS) : []));
  }

  taken() {
    if (!this.history) return null;
    const slots = this.grid.count(this.range.from, this.range.to);
    return { series: this.series, range: this.range, symbol: this.symbol, slots, isMissing: this.panel.stretch !== null };
  }
}

const pick = (series) => Object.fromEntries(Object.entries(series).filter(([, value]) => value));

/** Count the digits of prices where no tick is told. */
function digitsSeen(rows) {
  const prices = rows.slice(-ROWS_LOOKED_AT).flatMap((row) => row.slice(1, 5));
  return Math.max(...prices.map((each) => digitsOf(each) ?? 0));
}

function emptyWords(states) {
  if (!states.size) return "Nothing here yet: this is later than the newest closed candle.";
  if (states.has("not_fetched")) return "Not fetched yet. Below is what it would take.";
  if ([...states].some((state) => STORED.has(state))) return "No candles: the exchange has none here.";
  if (states.has("beyond_memory")) return "Beyond retention: the exchange no longer has these.";
  if (states.has("rejected")) return "Rejected: the exchange sent what can't be right.";
  return "Before history: this series begins later.";
}

function legendOf(shown, digits) {
  const isRow = Array.isArray(shown);
  if (!isRow && shown.close === undefined) return [element("span", {}, `${time(shown.open)} UTC: no candle`)];
  const [open, first, high, low, last, amount] = isRow ? shown : [shown.time, shown.open, shown.high, shown.low, shown.close, shown.volume];
  const tone = last < first ? "down" : "up";
  const figure = (name, text) => element("span", { className: tone }, `${name} `, element("b", {}, text));
  const prices = [["O", first], ["H", high], ["L", low], ["C", last]].map(([name, each]) => figure(name, price(each, digits)));
  return [element("span", {}, `${time(open)}${isRow ? "" : " forming"}`), ...prices, element("span", {}, "V ", element("b", {}, volume(amount)))];
}
