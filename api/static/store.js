// The overview: what is stored, what is being fetched, how exchanges and syncers are.

import { get, pause, send } from "./api.js";
import { byId, element } from "./dom.js";
import { showProblem } from "./errors.js";
import { count, period, seconds, time } from "./format.js";
import { addressOf } from "./permalink.js";
import { token } from "./token.js";

const REFRESH_MS = 3_000;
const MOST_SERIES = 500;
const MOST_RUNS = 20;

export class Store {
  leave() {
    this.controller?.abort();
  }

  /** Draw all parts, and keep jobs and health fresh while the view is shown. */
  async open() {
    this.controller = new AbortController();
    const { signal } = this.controller;
    document.title = "Store · Candle store";
    const parts = { series: section("Stored series"), jobs: section("Fetches"), health: section("Exchanges and syncers") };
    byId("store").replaceChildren(element("h1", {}, "What the store has"), ...Object.values(parts));
    await Promise.all([
      this.drawSeries(parts.series, signal),
      this.repeat((each) => this.drawJobs(parts.jobs, each), signal),
      this.repeat((each) => this.drawHealth(parts.health, each), signal),
    ]).catch((problem) => showProblem(problem));
  }

  async repeat(draw, signal) {
    while (!signal.aborted) {
      await draw(signal);
      await pause(REFRESH_MS, signal);
    }
  }

  async drawSeries(part, signal) {
    try {
      const { series, next } = await get("/coverage", { limit: MOST_SERIES }, signal);
      part.replaceChildren(part.firstChild, ...seriesNodes(series, next));
    } catch (problem) {
      told(part, problem, "Listing the stored series");
    }
  }

  async drawJobs(part, signal) {
    try {
      const { backfills } = await get("/backfills", { limit: 20 }, signal);
      const jobs = backfills.map((job) => this.jobRow(job));
      const nodes = jobs.length ? table(["Series", "Window (UTC)", "State", "Progress", ""], jobs) : words("No fetch under way, and none of late.");
      if (!part.contains(document.activeElement)) part.replaceChildren(part.firstChild, nodes);
    } catch (problem) {
      told(part, problem, "Listing jobs");
    }
  }

  jobRow(job) {
    const share = job.progress?.share ?? (job.state === "done" ? 1 : 0);
    const isOpen = job.state === "queued" || job.state === "running";
    const bar = element("progress", { max: 1, value: share, "aria-label": `Job ${job.job}` });
    const eta = isOpen && job.estimate?.eta_s ? `, about ${seconds(job.estimate.eta_s)} left` : "";
    const cancel = element("button", { type: "button", "data-testid": `cancel-${job.job}` }, "Cancel");
    cancel.addEventListener("click", () => this.cancel(job, cancel));
    return [
      `${job.exchange} ${job.market_type} ${job.symbol} ${job.interval}`,
      period(job.start, job.end),
      job.error ? `${job.state}: ${job.error}` : job.state,
      element("span", {}, bar, ` ${Math.floor(100 * share)}%${eta}`),
      isOpen ? cancel : "",
    ];
  }

  async cancel(job, button) {
    button.disabled = true;
    try {
      await send(job.status_url, { method: "DELETE" });
      button.replaceWith("cancelled");
    } catch (problem) {
      button.disabled = false;
      showProblem(problem);
    }
  }

  async drawHealth(part, signal) {
    try {
      const health = await get("/health", {}, signal);
      part.replaceChildren(part.firstChild, ...healthNodes(health));
    } catch (problem) {
      told(part, problem, "The service's health");
    }
  }
}

function section(title) {
  const made = element("section", {}, element("h2", {}, title), words("Reading…"));
  made.setAttribute("aria-label", title);
  return made;
}

const words = (text) => element("p", { className: "state-words" }, text);

function told(part, problem, what) {
  if (problem.name === "AbortError") throw problem;
  part.replaceChildren(part.firstChild, words(`${what} did not work: ${problem.message}`));
}

function table(titles, rows) {
  const head = element("tr", {}, ...titles.map((title) => element(title ? "th" : "td", title ? { scope: "col" } : {}, title)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => (cell?.tagName === "TD" ? cell : element("td", {}, cell)))));
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": titles[0] }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

// --- series -------------------------------------------------------------------------------------

function seriesNodes(series, next) {
  if (!series.length) return [words("Nothing is stored yet: look at a symbol, and it is fetched.")];
  const [first, last] = [Math.min(...series.map((each) => each.start)), Math.max(...series.map((each) => each.end))];
  const rows = series.map((each) => seriesRow(each, first, last));
  const titles = ["Exchange", "Symbol", "Interval", `Coverage, ${period(first, last)}`, "From (UTC)", "To (UTC)", "Candles", "Last asked for"];
  const more = next ? [words(`These are the first ${count(series.length)} series; the API lists the others.`)] : [];
  return [figures(series, next), table(titles, rows), ...more];
}

function figures(series, next) {
  const slots = series.reduce((sum, each) => sum + each.covered_slots, 0);
  const symbols = new Set(series.map((each) => `${each.exchange} ${each.market_type} ${each.symbol}`));
  const unconfirmed = series.reduce((sum, each) => sum + (each.unconfirmed_slots ?? 0), 0);
  const atLeast = next ? "at least " : "";
  const list = [[`${atLeast}${count(slots)}`, "candles"], [`${atLeast}${count(series.length)}`, "series"], [`${atLeast}${count(symbols.size)}`, "symbols"]];
  if (unconfirmed) list.push([count(unconfirmed), "slots unconfirmed"]);
  return element("ul", { className: "figures" }, ...list.map(([figure, noun]) => element("li", {}, element("b", {}, figure), noun)));
}

function seriesRow(each, first, last) {
  const { exchange, market_type, symbol, interval, start, end } = each;
  const link = element("a", { href: addressOf({ exchange, market_type, symbol, interval }) }, symbol);
  const lane = element("div", { className: "lane", title: period(start, end) }, element("i"));
  const span = Math.max(1, last - first);
  lane.firstChild.style.left = `min(${(100 * (start - first)) / span}%, 100% - 3px)`;
  lane.firstChild.style.width = `${(100 * (end - start)) / span}%`;
  const number = element("td", { className: "number" }, count(each.covered_slots));
  const asked = each.last_requested ? time(each.last_requested) : "never";
  return [`${exchange} ${market_type}`, link, interval, element("td", { className: "wide" }, lane), time(start), time(end), number, asked];
}

// --- health -------------------------------------------------------------------------------------

function healthNodes(health) {
  const exchanges = Object.entries(health.exchanges ?? {});
  const database = health.database ?? {};
  const kind = [database.kind, database.postgres && `Postgres ${database.postgres}`, database.timescaledb && `TimescaleDB ${database.timescaledb}`];
  const nodes = [words(`The service is ${health.status}${database.problem ? `: ${database.problem}` : ""}. Database: ${kind.filter(Boolean).join(", ") || "not told"}.`)];
  if (exchanges.length) nodes.push(table(["Exchange", "State", "Clock"], exchanges.map(exchangeRow)));
  else nodes.push(words(adminWords("how exchanges are")));
  nodes.push(...syncerNodes(health), ...counterNodes(health.counters));
  return nodes;
}

const adminWords = (what) => (token.has("admin") ? `The service does not tell ${what}.` : `A token with the scope admin sees ${what}.`);

function exchangeRow([name, { reachable, last_error: error, clock_offset_ms: offset, blocked }]) {
  const blocks = [blocked].flat().filter((each) => each && typeof each === "object");
  const isBlocked = blocks.length > 0 || typeof blocked === "number";
  const until = blocks.map((each) => `blocked until ${time(each.until)} UTC: ${each.why ?? ""}`);
  if (typeof blocked === "number") until.push(`blocked until ${time(blocked)} UTC`);
  const parts = [reachable === false ? `away${error ? `: ${error}` : ""}` : null, ...until];
  const state = parts.filter(Boolean).join("; ") || (isBlocked ? "blocked" : "not blocked");
  const clock = typeof offset === "number" ? `${count(offset)} ms off` : "not told";
  return [name, element("td", { className: "words" }, state), clock];
}

function syncerNodes(health) {
  const { syncers, runs } = health;
  if (!syncers && !runs) return [words(adminWords("syncers and their runs"))];
  const alive = (syncers ?? []).filter((each) => each.alive).length;
  const nodes = [words(alive ? `${count(alive)} of ${count(syncers.length)} known syncers alive.` : "No syncer is alive: large fetches wait until one is.")];
  if (runs?.length) nodes.push(table(["Run", "Due (UTC)", "Took", "Rows", "What came of it"], latest(runs).map(runRow)));
  return nodes;
}

const latest = (runs) => [...runs].sort((a, b) => b.due_at - a.due_at).slice(0, MOST_RUNS);

function runRow(run) {
  const took = run.ended_at ? seconds((run.ended_at - run.started_at) / 1000) : "running";
  const outcome = run.error ?? (run.ended_at ? "done" : "under way");
  return [run.job, time(run.due_at), took, run.rows === null ? "" : count(run.rows), element("td", { className: "words" }, outcome)];
}

function counterNodes(counters) {
  if (!counters) return [];
  const list = Object.entries(counters).map(([name, value]) => element("li", {}, element("b", {}, count(value)), name.replaceAll("_", " ")));
  return [element("ul", { className: "figures" }, ...list)];
}
