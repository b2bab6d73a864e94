// The chart: draws rows of a history; its time scale counts slots, gaps included.

import { mark } from "./dom.js";
import { time } from "./format.js";

const MOST_VISIBLE = 15_000;
const INPUT_MS = 1_500;
const SMALLEST_WIDTH = 40;
const DAY_MS = 86_400_000;
const VOLUME_HEIGHT = 0.22;
const PAN_PART = 0.12;
const ZOOM_PART = 0.2;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const lighter = (hex) => `${hex}59`;

export class Chart {
  /** Draw into `container`; `onMove` gets the range after the user moved it, `onHover` a row or null. */
  constructor(container, { onMove, onScroll, onHover }) {
    Object.assign(this, { container, onMove, onScroll, onHover });
    this.history = null;
    this.range = null;
    this.forming = null;
    this.pointerIsDown = false;
    this.lastInput = -Infinity;
    this.mostVisible = MOST_VISIBLE;
    this.make();
    this.listen();
  }

  make() {
    const { LightweightCharts: library } = window;
    this.chart = library.createChart(this.container, this.options());
    this.candles = this.chart.addSeries(library.CandlestickSeries, { borderVisible: false });
    this.volumes = this.chart.addSeries(library.HistogramSeries, { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false }, 1);
    // Slots without a candle: they hold the time scale where there is nothing to draw.
    this.slots = this.chart.addSeries(library.LineSeries, { priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false });
    const [prices, volumes] = this.chart.panes();
    prices.setStretchFactor(1 - VOLUME_HEIGHT);
    volumes.setStretchFactor(VOLUME_HEIGHT);
    this.paint();
  }

  options() {
    return {
      autoSize: true,
      layout: { attributionLogo: true, fontFamily: getComputedStyle(document.body).fontFamily, panes: { enableResize: false } },
      timeScale: {
        timeVisible: true,
        secondsVisible: false,
        enableConflation: true,
        rightOffset: 0,
        shiftVisibleRangeOnNewBar: false,
        lockVisibleTimeRangeOnResize: false,
      },
      localization: { locale: "en-US", timeFormatter: (seconds) => `${time(seconds * 1000)} UTC` },
      kineticScroll: { touch: true, mouse: false },
    };
  }

  /** Take the colours of the page, light or dark. */
  paint() {
    this.colours = { up: colour("up"), down: colour("down") };
    [this.paleUp, this.paleDown] = [lighter(this.colours.up), lighter(this.colours.down)];
    for (const row of this.history?.rows ?? []) row.items = undefined;
    const { up, down } = this.colours;
    this.chart.applyOptions({
      layout: { background: { color: colour("back") }, textColor: colour("soft"), panes: { separatorColor: colour("line") } },
      grid: { vertLines: { color: colour("grid") }, horzLines: { color: colour("grid") } },
      rightPriceScale: { borderColor: colour("line") },
      timeScale: { borderColor: colour("line") },
    });
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    if (this.history) this.draw();
  }

  listen() {
    const input = () => { this.lastInput = performance.now(); };
    this.container.addEventListener("pointerdown", () => { this.pointerIsDown = true; input(); }, true);
    window.addEventListener("pointerup", () => this.release());
    window.addEventListener("pointercancel", () => this.release());
    this.container.addEventListener("wheel", input, { capture: true, passive: true });
    this.container.addEventListener("dblclick", input, true);
    this.container.addEventListener("touchmove", input, { capture: true, passive: true });
    this.container.addEventListener("keydown", (event) => this.onKey(event));
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(() => this.changed());
    this.chart.subscribeCrosshairMove((event) => this.hovered(event));
    new ResizeObserver(() => this.resized()).observe(this.container);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  release() {
    if (!this.pointerIsDown) return;
    this.pointerIsDown = false;
    this.lastInput = performance.now();
    this.onScroll();
  }

  /** Show another series. */
  open(history, { mostVisible }) {
    this.history = history;
    this.forming = null;
    this.mostVisible = Math.max(MOST_VISIBLE, mostVisible ?? 0);
    this.chart.timeScale().applyOptions({ timeVisible: history.grid.step < DAY_MS });
    this.chart.priceScale("right").applyOptions({ autoScale: true });
  }

  setDigits(precision) {
    this.candles.applyOptions({ priceFormat: { type: "price", precision, minMove: 10 ** -precision } });
  }

  /** Show nothing. */
  clear() {
    this.history = this.range = this.forming = null;
    this.whitespaceKey = undefined;
    for (const series of [this.slots, this.candles, this.volumes]) series.setData([]);
    mark(this.container, "data-rows", 0);
    mark(this.container, "data-first", null);
    mark(this.container, "data-last", null);
  }

  /** Draw what the history holds, and the range where it was. */
  draw() {
    const { history } = this;
    this.base = history.isEmpty ? 0 : history.grid.index(history.start);
    const [candles, volumes] = this.items();
    this.drawWhitespace();
    this.candles.setData(candles);
    this.volumes.setData(volumes);
    if (this.forming) this.drawForming();
    this.tell();
    if (this.range) this.place();
  }

  items() {
    const { rows } = this.history;
    const settledUntil = this.history.settledUntil ?? Infinity;
    const candles = new Array(rows.length);
    const volumes = new Array(rows.length);
    for (let i = 0; i < rows.length; i += 1) {
      const row = rows[i];
      // Made once for a row, while it can't change: most of a load has been drawn before.
      const [candle, amount] = row[0] < settledUntil ? (row.items ??= this.itemsOf(row)) : this.provisional(row);
      candles[i] = candle;
      volumes[i] = amount;
    }
    return [candles, volumes];
  }

  itemsOf([open, first, high, low, last, amount]) {
    const seconds = open / 1000;
    const tone = last < first ? this.paleDown : this.paleUp;
    return [{ time: seconds, open: first, high, low, close: last }, { time: seconds, value: amount, color: tone }];
  }

  provisional(row) {
    const items = this.itemsOf(row);
    this.lighten(items[0], row[4] < row[1] ? this.colours.down : this.colours.up);
    return items;
  }

  lighten(item, tone) {
    Object.assign(item, { color: lighter(tone), wickColor: lighter(tone), borderColor: lighter(tone) });
  }

  /** Draw the slots without candles, if they are others than before: each drawing is costly. */
  drawWhitespace() {
    const items = this.whitespace();
    const key = items.length ? `${items.length} ${items[0].time} ${items.at(-1).time}` : "";
    if (key === this.whitespaceKey) return;
    this.whitespaceKey = key;
    this.slots.setData(items);
  }

  whitespace() {
    const { history } = this;
    if (history.isEmpty) return [];
    const { grid, rows } = history;
    const items = [];
    let at = 0;
    const stop = grid.index(history.end);
    for (let index = this.base; index < stop; index += 1) {
      const open = grid.at(index);
      if (at < rows.length && rows[at][0] === open) at += 1;
      else items.push({ time: open / 1000 });
    }
    return items;
  }

  /** Show or move the candle that is not closed yet, if it follows what is loaded. */
  setForming(candle) {
    this.forming = candle;
    if (candle) this.drawForming();
  }

  drawForming() {
    const { forming, history } = this;
    if (history.isEmpty || forming.time !== history.end) return;
    const seconds = forming.time / 1000;
    const tone = forming.close < forming.open ? this.colours.down : this.colours.up;
    const item = { time: seconds, open: forming.open, high: forming.high, low: forming.low, close: forming.close };
    this.lighten(item, tone);
    this.candles.update(item);
    this.volumes.update({ time: seconds, value: forming.volume, color: lighter(tone) });
  }

  /** Tell programs and screen readers what is loaded. */
  tell() {
    const { rows } = this.history;
    if (rows.length && !this.isTold) performance.mark("candles");
    this.isTold ||= rows.length > 0;
    mark(this.container, "data-rows", rows.length);
    mark(this.container, "data-first", rows.length ? rows[0][0] : null);
    mark(this.container, "data-last", rows.length ? rows.at(-1)[0] : null);
  }

  show(range) {
    this.range = range;
    if (!this.history.isEmpty) this.place();
  }

  /** Put the range on the screen: a bar lies half a slot to either side of its index. */
  place() {
    const width = this.width();
    if (width < SMALLEST_WIDTH) return;
    const scale = this.chart.timeScale();
    scale.applyOptions({ minBarSpacing: width / (this.mostVisible * 1.02), maxBarSpacing: width });
    const { grid } = this.history;
    const from = grid.index(grid.ceil(this.range.from)) - this.base - 0.5;
    const to = grid.index(grid.ceil(this.range.to)) - this.base - 0.5;
    scale.setVisibleLogicalRange({ from, to });
  }

  resized() {
    if (this.range && this.history && !this.history.isEmpty) this.place();
    this.onScroll();
  }

  width = () => this.chart.timeScale().width();

  /** Return how many ms of the visible range one could see to the left and right of the plot. */
  visible() {
    const logical = this.chart.timeScale().getVisibleLogicalRange();
    if (!logical || !this.history || this.history.isEmpty) return null;
    return { from: this.base + logical.from + 0.5, to: this.base + logical.to + 0.5 };
  }

  get isMovedByUser() {
    return this.pointerIsDown || performance.now() - this.lastInput < INPUT_MS;
  }

  changed() {
    if (this.isQueued) return;
    this.isQueued = true;
    requestAnimationFrame(() => {
      this.isQueued = false;
      this.takeMove();
    });
  }

  takeMove() {
    const visible = this.visible();
    if (!visible) return;
    if (this.isMovedByUser) {
      const { grid } = this.history;
      const from = grid.at(Math.round(visible.from));
      const to = grid.at(Math.max(Math.round(visible.to), Math.round(visible.from) + 1));
      if (from !== this.range?.from || to !== this.range?.to) {
        this.range = { from, to };
        this.onMove(this.range);
      }
    }
    this.onScroll();
  }

  hovered({ time: seconds }) {
    if (seconds === undefined || !this.history) return this.onHover(null);
    const open = seconds * 1000;
    const { rows } = this.history;
    const at = this.history.indexOf(open);
    return this.onHover(rows[at]?.[0] === open ? rows[at] : { open });
  }

  onKey(event) {
    const step = { ArrowLeft: -PAN_PART, ArrowRight: PAN_PART, PageUp: -1, PageDown: 1 }[event.key];
    const zoom = { "+": -ZOOM_PART, "=": -ZOOM_PART, "-": ZOOM_PART }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !this.range || !this.history) return;
    if (step !== undefined) this.shift(step);
    else if (zoom !== undefined) this.zoom(zoom);
    else return;
    event.preventDefault();
  }

  /** Move by a part of what is visible. */
  shift(part) {
    const { grid } = this.history;
    const [from, to] = [grid.index(this.range.from), grid.index(grid.ceil(this.range.to))];
    const slots = Math.sign(part) * Math.max(1, Math.round(Math.abs(part) * (to - from)));
    this.moveTo({ from: grid.at(from + slots), to: grid.at(to + slots) });
  }

  /** Show more or less, the newest side held. */
  zoom(part) {
    const { grid } = this.history;
    const [from, to] = [grid.index(this.range.from), grid.index(grid.ceil(this.range.to))];
    const slots = Math.min(Math.max(5, Math.round((to - from) * (1 + part))), this.mostVisible);
    this.moveTo({ from: grid.at(to - slots), to: grid.at(to) });
  }

  moveTo(range) {
    this.show(range);
    this.onMove(range);
    this.onScroll();
  }
}
