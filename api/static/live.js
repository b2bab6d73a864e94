// The newest candle: asked for as often as the service has a new one.

import { get, seriesPath } from "./api.js";

const SHARED_MS = 3_000;
const LONG_SHARED_MS = 10_000;
const AFTER_FAILURE_MS = 10_000;

export class Live {
  constructor(onCandle) {
    this.onCandle = onCandle;
    this.controller = null;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** Follow a series from now on; null follows none. `slotMs` is how long a candle takes. */
  follow(series, slotMs = 0) {
    this.series = series;
    this.slotMs = slotMs;
    this.wake();
  }

  wake() {
    clearTimeout(this.timer);
    this.controller?.abort();
    if (this.series && !document.hidden) this.poll();
  }

  async poll() {
    this.controller = new AbortController();
    const { signal } = this.controller;
    const wait = await this.ask(signal);
    if (!signal.aborted) this.timer = setTimeout(() => this.poll(), wait);
  }

  /** Ask once; return how long to wait: an answer that is not new is shared for longer. */
  async ask(signal) {
    try {
      const latest = await get(seriesPath("latest", this.series), { forming: true }, signal);
      if (signal.aborted) return 0;
      const isNew = latest.as_of !== this.asOf;
      this.asOf = latest.as_of;
      await this.onCandle(latest.candle);
      return isNew ? SHARED_MS : LONG_SHARED_MS - SHARED_MS;
    } catch (error) {
      if (error.name === "AbortError") return 0;
      if (error.status === 404) return Math.max(AFTER_FAILURE_MS, this.slotMs - (Date.now() % this.slotMs));
      return Math.max(AFTER_FAILURE_MS, (error.retryAfter ?? 0) * 1000);
    }
  }
}
