// The coverage strip under the chart, and in words why some of it is empty.

import { byId, element, mark, show } from "./dom.js";
import { count, period } from "./format.js";
import { asShown, clip, join } from "./windows.js";

const MOST_ELEMENTS = 800;
const MOST_WORDS = 6;

const WORDS = {
  covered: "stored, as the exchange has it",
  candles: "stored, as the exchange has it",
  no_candles: "no candles: the exchange was asked, and has none here. There was no trade, or trading was halted.",
  unconfirmed: "absent so far: the exchange was asked and gave none, and will be asked again before that is believed.",
  before_history: "before history: the exchange's first candle of this series comes later.",
  beyond_memory: "beyond retention: the exchange no longer gives candles this old, and they were not stored in time.",
  not_fetched: "not fetched: no request has asked for these yet.",
  rejected: "rejected: the exchange sent a row that can't be right. It is asked again, and nothing is made up meanwhile.",
};
const HAS_CANDLES = new Set(["covered", "candles"]);

let drawn = "";

/** Draw the windows of the visible range; `visible` holds slots with their fractions. */
export function drawStrip(history, range, visible, plotWidth) {
  const strip = byId("coverage-strip");
  const windows = history.isEmpty || !range ? [] : shownWindows(history, range);
  const key = JSON.stringify([windows, visible, plotWidth]);
  if (key === drawn && strip.children.length === windows.length) return;
  drawn = key;
  strip.style.width = plotWidth ? `${plotWidth}px` : "";
  fit(strip, windows.length);
  windows.forEach((each, n) => place(strip.children[n], each, history.grid, visible));
  mark(strip, "aria-label", summary(windows, history.grid));
  drawHoles(windows, history.grid);
}

/** Return what the strip shows: slot by slot, unless that is more than can be seen. */
export function shownWindows(history, { from, to }) {
  const windows = asShown(clip(history.windows, from, to));
  if (windows.length <= MOST_ELEMENTS) return windows;
  const coarse = clip(history.windows, from, to).map((each) => (HAS_CANDLES.has(each.state) || each.state === "no_candles" ? { ...each, state: "covered" } : each));
  return join(coarse);
}

function fit(strip, length) {
  while (strip.children.length > length) strip.lastChild.remove();
  while (strip.children.length < length) strip.append(element("i"));
}

function place(node, { start, end, state, isProvisional }, grid, visible) {
  mark(node, "data-state", state);
  mark(node, "data-start", start);
  mark(node, "data-end", end);
  node.className = isProvisional ? "provisional" : "";
  const span = visible.to - visible.from;
  const left = (grid.index(start) - visible.from) / span;
  const width = grid.count(start, end) / span;
  node.style.left = `${(100 * left).toFixed(3)}%`;
  node.style.width = `${(100 * width).toFixed(3)}%`;
  node.title = `${period(start, end)}: ${isProvisional ? "closed, and may still change" : WORDS[state] ?? state}`;
}

function holesOf(windows) {
  return windows.filter((each) => !HAS_CANDLES.has(each.state) && !each.isProvisional);
}

function drawHoles(windows, grid) {
  const holes = holesOf(windows);
  const largest = [...holes].sort((a, b) => b.end - b.start - (a.end - a.start)).slice(0, MOST_WORDS);
  const items = largest.sort((a, b) => a.start - b.start).map((each) => holeItem(each, grid));
  const rest = holes.length - largest.length;
  if (rest > 0) items.push(element("li", {}, `… and ${count(rest)} smaller. The strip shows them all; zoom in to read them here.`));
  byId("holes").replaceChildren(...items);
  show(byId("holes-section"), items.length > 0);
}

function holeItem({ start, end, state }, grid) {
  const slots = grid.count(start, end);
  return element(
    "li",
    {},
    element("i", { className: "swatch", "data-state": state, "aria-hidden": "true" }),
    element("span", {}, `${period(start, end)} UTC (${count(slots)} ${slots === 1 ? "slot" : "slots"})`),
    element("span", {}, WORDS[state] ?? state),
  );
}

function summary(windows, grid) {
  if (!windows.length) return "Coverage: nothing known here";
  const slots = new Map();
  for (const each of windows) slots.set(each.state, (slots.get(each.state) ?? 0) + grid.count(each.start, each.end));
  const words = [...slots].map(([state, number]) => `${count(number)} slots ${state.replaceAll("_", " ")}`);
  return `Coverage: ${words.join(", ")}`;
}
