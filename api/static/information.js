// What is known of the symbol on the screen, and how much of the series is stored.

import { get, seriesPath } from "./api.js";
import { byId, element } from "./dom.js";
import { count, days, time } from "./format.js";
import { STORED } from "./windows.js";

const SOURCES = { exchange: "the exchange's list" };

/** Read the coverage of a whole series: its windows from the first to now. */
export async function readWhole(series, signal) {
  const windows = [];
  for (let path = seriesPath("coverage", series); path; ) {
    const page = await get(path, {}, signal);
    windows.push(...page.windows);
    path = page.next;
  }
  return windows;
}

/** Write the line: tick, listing and its source, coverage in days and candles. */
export function drawInformation(series, symbol, windows, grid) {
  const stored = windows.filter((each) => STORED.has(each.state));
  const length = stored.reduce((sum, each) => sum + each.end - each.start, 0);
  const slots = stored.reduce((sum, each) => sum + grid.count(each.start, each.end), 0);
  const parts = [
    ["Tick", symbol?.tick_size ? plain(symbol.tick_size) : "not told"],
    ["Listed", listed(symbol)],
    ["History from", windows[0]?.start > 0 ? time(windows[0].start, { dateAlone: true }) : "not known yet"],
    ["Stored", slots ? `${days(length)}, ${count(slots)} candles` : "nothing yet"],
  ];
  if (symbol && !symbol.active) parts.push(["Status", "no longer traded"]);
  const nodes = parts.flatMap(([name, value], n) => [n ? " · " : "", `${name} `, element("b", {}, value)]);
  const node = byId("symbol-info");
  node.replaceChildren(...nodes);
  node.dataset.candles = slots;
  node.dataset.days = length / 86_400_000;
}

function listed(symbol) {
  if (!symbol?.listed_at) return "the exchange does not say when";
  const source = SOURCES[symbol.listed_source ?? "exchange"] ?? symbol.listed_source;
  return `${time(symbol.listed_at).slice(0, 10)} (from ${source})`;
}

const plain = (number) => number.toLocaleString("en-US", { maximumFractionDigits: 12, useGrouping: false });
