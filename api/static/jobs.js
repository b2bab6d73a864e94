// Fetching: what it would take, asking for it, following the job, calling it off.

import { get, pause, Problem, send, seriesPath } from "./api.js";

const LONGEST_PAUSE_MS = 2_000;
const COVERAGE_PAUSE_MS = 600;
const ENDED = new Set(["done", "cancelled", "failed"]);

/** Return the service's plan for a window: its estimate. Throws Problem where there is none. */
export async function estimatePlan(series, start, end, signal) {
  const json = {
    exchange: series.exchange,
    market_type: series.market_type,
    symbols: [series.symbol],
    intervals: [series.interval],
    start,
    end,
    dry_run: true,
  };
  const plan = await (await send("/backfills", { method: "POST", json, signal })).json();
  const [failed] = plan.failed ?? [];
  if (failed) throw new Problem({ code: failed.code, detail: failed.detail });
  return plan;
}

/** A fetch under way: `done` settles when it ended; `cancel` calls it off. */
export class Fetch {
  constructor(series, start, end, { onProgress, slots }) {
    Object.assign(this, { series, start, end, onProgress, slots, statusUrl: null });
    this.controller = new AbortController();
    this.done = this.run();
  }

  /** Call it off: a job by the service, a request by leaving it. What came stays. */
  async cancel() {
    if (this.statusUrl) await send(this.statusUrl, { method: "DELETE" });
    this.controller.abort();
  }

  async run() {
    const { signal } = this.controller;
    const watching = new AbortController();
    const watch = this.watchCoverage(watching.signal).catch(() => {});
    try {
      // One column: the rows are read with the others that the chart lacks.
      const query = new URLSearchParams({ start: this.start, end: this.end, fields: "close" });
      const answer = await send(`${seriesPath("candles", this.series)}?${query}`, { signal });
      const body = await answer.json();
      if (answer.status !== 202) return "done";
      watching.abort();
      return await this.follow(body, Number(answer.headers.get("Retry-After")) || 1);
    } finally {
      watching.abort();
      await watch;
    }
  }

  /** Tell how much is covered while a request has it fetched. */
  async watchCoverage(signal) {
    for (;;) {
      await pause(COVERAGE_PAUSE_MS, signal);
      const { windows } = await get(seriesPath("coverage", this.series), { start: this.start, end: this.end }, signal);
      const missing = windows.filter((each) => each.state === "not_fetched");
      const left = missing.reduce((sum, each) => sum + this.slots(each.start, each.end), 0);
      const slots = this.slots(this.start, this.end);
      this.onProgress({ slots, covered: slots - left, share: slots ? 1 - left / slots : 1 });
    }
  }

  async follow(accepted, retryAfter) {
    const { signal } = this.controller;
    this.statusUrl = accepted.status_url;
    let wait = Math.min(retryAfter * 1000, LONGEST_PAUSE_MS / 4);
    for (;;) {
      await pause(wait, signal);
      const job = await get(this.statusUrl, {}, signal);
      this.onProgress({ ...(job.progress ?? {}), eta: job.estimate?.eta_s, state: job.state });
      if (ENDED.has(job.state)) return this.ended(job);
      wait = Math.min(wait * 1.5, LONGEST_PAUSE_MS);
    }
  }

  ended(job) {
    if (job.state !== "failed") return job.state;
    const [missing] = job.missing ?? [];
    const detail = job.error || missing?.detail || "The job failed without a word.";
    throw new Problem({ code: missing?.reason ?? "failed", detail });
  }
}
