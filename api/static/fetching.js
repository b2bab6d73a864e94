// The fetch button: what a stretch would take, the way there, and calling it off.

import { Problem } from "./api.js";
import { byId, mark, show } from "./dom.js";
import { count, plural, seconds } from "./format.js";
import { estimatePlan, Fetch } from "./jobs.js";

const ESTIMATE_DELAY_MS = 250;

export class FetchPanel {
  /** `onFetched` is told the stretch of which candles came, `onProblem` an error. */
  constructor({ onFetched, onProblem }) {
    Object.assign(this, { onFetched, onProblem, stretch: null, running: null });
    byId("fetch").addEventListener("click", () => this.start());
    byId("cancel").addEventListener("click", () => this.cancel());
  }

  /** Offer to fetch a stretch of a series; null where nothing is missing. */
  offer(history, stretch) {
    const key = stretch === null ? null : JSON.stringify([history.series, stretch]);
    if (key === this.key) return;
    this.key = key;
    this.history = history;
    this.stretch = stretch;
    this.controller?.abort();
    clearTimeout(this.timer);
    this.draw();
    if (stretch && !this.running) this.plan();
  }

  draw() {
    const isOffered = this.stretch !== null && !this.running;
    show(byId("fetch-panel"), isOffered || this.running !== null);
    show(byId("fetch"), isOffered);
    show(byId("estimate"), isOffered);
    show(byId("progress"), this.running !== null);
    show(byId("cancel"), this.running !== null);
    byId("cancel").disabled = false;
  }

  plan() {
    const { start, end } = this.stretch;
    const slots = this.history.grid.count(start, end);
    byId("fetch").textContent = `Fetch up to ${plural(slots, "candle")}`;
    this.write("Working out what it would take…", {});
    this.controller = new AbortController();
    const { signal } = this.controller;
    this.timer = setTimeout(() => this.estimate(start, end, signal), ESTIMATE_DELAY_MS);
  }

  async estimate(start, end, signal) {
    try {
      const { estimate } = await estimatePlan(this.history.series, start, end, signal);
      byId("fetch").textContent = `Fetch ${plural(estimate.candles, "candle")}`;
      this.write(words(estimate), estimate);
    } catch (error) {
      if (error.name !== "AbortError") this.write(`What it would take is not known: ${error.message}`, {});
    }
  }

  write(text, { candles, pages, weight, eta_s: eta }) {
    const node = byId("estimate");
    node.textContent = text;
    mark(node, "data-candles", candles);
    mark(node, "data-pages", pages);
    mark(node, "data-weight", weight);
    mark(node, "data-seconds", eta);
  }

  async start() {
    const { history, stretch } = this;
    if (!stretch || this.running) return;
    const slots = (start, end) => history.grid.count(start, end);
    this.name = `${history.series.symbol} ${history.series.interval}`;
    this.progress({ slots: slots(stretch.start, stretch.end), covered: 0, share: 0 });
    this.running = new Fetch(history.series, stretch.start, stretch.end, { onProgress: (each) => this.progress(each), slots });
    this.draw();
    byId("cancel").focus();
    await this.finish(history, stretch);
  }

  async finish(history, stretch) {
    let problem = null;
    try {
      const state = await this.running.done;
      if (state === "cancelled") problem = new Problem({ code: "cancelled", detail: "The fetch was cancelled. What had come is kept." });
    } catch (error) {
      problem = error.name === "AbortError" ? new Problem({ code: "cancelled", detail: "The fetch was cancelled. What had come is kept." }) : error;
    }
    this.running = null;
    this.key = undefined;
    this.draw();
    await this.onFetched(history, stretch);
    if (this.key === undefined && this.stretch) this.plan(); // of the series that is shown meanwhile
    if (problem) this.onProblem(problem);
  }

  async cancel() {
    byId("cancel").disabled = true;
    byId("progress-text").textContent = "Cancelling…";
    try {
      await this.running?.cancel();
    } catch (error) {
      byId("cancel").disabled = false;
      this.onProblem(error);
    }
  }

  progress({ slots, covered, share, eta, state }) {
    if (share === undefined) return;
    byId("progress-bar").value = share;
    const left = eta > 0 ? `, about ${seconds(eta)} left` : "";
    const waits = state === "queued" ? ", waiting for its turn" : "";
    byId("progress-text").textContent = `${this.name}: ${Math.floor(100 * share)}%, ${count(covered)} of ${count(slots)} slots${waits || left}`;
    mark(byId("progress"), "data-share", share);
  }
}

function words({ candles, pages, weight, eta_s: eta, files }) {
  const archive = files ? `, ${plural(files, "archive file")}` : "";
  return `${plural(candles, "candle")} in ${plural(pages, "page")}${archive}, weight ${count(weight)} of the exchange's limit, about ${seconds(eta)}.`;
}
