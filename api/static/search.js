// The symbol search: a combobox over the symbols of all exchanges.

import { readMarkets, readSymbols } from "./catalog.js";
import { byId, element, mark, show } from "./dom.js";
import { bestSymbols } from "./ranking.js";

const MOST_HITS = 40;

let hits = [];
let selected = 0;
let isTouched = false;
let symbols = [];
let failures = [];
let loading = null;
let choose = () => {};
let shownExchange = () => null;

/** Set up the search; `whenChosen` gets the symbol, `exchange` tells which one is shown. */
export function setUpSearch(whenChosen, exchange) {
  choose = whenChosen;
  shownExchange = exchange;
  const input = byId("symbol-search");
  input.addEventListener("focus", open);
  input.addEventListener("click", open);
  input.addEventListener("input", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", onKey);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
}

/** Show the name of the series that is on the screen. */
export function nameInSearch(name) {
  const input = byId("symbol-search");
  if (document.activeElement !== input) input.value = name;
}

async function load() {
  const lists = await Promise.all((await readMarkets()).map((market) =>
    readSymbols(market).catch((error) => ({ failed: `${market.title}: ${error.message}` }))));
  symbols = lists.filter(Array.isArray).flat();
  failures = lists.filter((list) => !Array.isArray(list)).map((list) => list.failed);
}

function ready() {
  loading ??= load().finally(() => {
    loading = failures.length || !symbols.length ? null : loading;
  });
  return loading;
}

async function open(event) {
  const input = byId("symbol-search");
  if (event.type === "focus") input.select();
  isTouched = event.type === "input" || (isTouched && event.type !== "focus");
  if (!symbols.length) tell(["Reading the symbols…"]);
  await ready().catch((error) => { failures = [error.message]; });
  if (document.activeElement !== input) return;
  find(event.type === "input" ? input.value : "");
}

function find(text) {
  hits = bestSymbols(symbols, text, MOST_HITS, shownExchange());
  selected = 0;
  draw();
}

function draw() {
  const words = failures.map((failure) => `Not searched. ${failure}`);
  if (!hits.length) words.unshift("No symbol of any exchange looks like that.");
  tell(words, hits.map(option));
  select(selected);
}

function tell(words, options = []) {
  const list = byId("symbol-hits");
  list.replaceChildren(...options, ...words.map((text) => element("li", { className: "told", role: "presentation" }, text)));
  show(list);
  mark(byId("symbol-search"), "aria-expanded", options.length > 0);
}

function option(hit, index) {
  const made = element(
    "li",
    { id: `hit-${index}`, role: "option", "aria-selected": "false" },
    element("b", {}, hit.symbol),
    element("span", {}, hit.native_symbol === hit.symbol ? "" : hit.native_symbol),
    element("span", {}, `${hit.exchange} ${hit.market_type}${hit.active ? "" : ", no longer traded"}`),
  );
  made.addEventListener("mousedown", (event) => {
    event.preventDefault();
    take(hit);
  });
  made.addEventListener("mousemove", () => select(index));
  return made;
}

function select(index) {
  const options = byId("symbol-hits").querySelectorAll("[role=option]");
  if (!options.length) return mark(byId("symbol-search"), "aria-activedescendant", null);
  selected = (index + options.length) % options.length;
  options.forEach((each, n) => mark(each, "aria-selected", n === selected));
  mark(byId("symbol-search"), "aria-activedescendant", `hit-${selected}`);
  return options[selected].scrollIntoView({ block: "nearest" });
}

async function onKey(event) {
  const isOpen = !byId("symbol-hits").hidden;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    isTouched = true;
    if (isOpen) select(selected + (event.key === "ArrowDown" ? 1 : -1));
    else open(event);
  } else if (event.key === "Enter") {
    event.preventDefault();
    await takeBest();
  } else if (event.key === "Escape") {
    close();
  }
}

/** Take the selected hit; letters typed before the symbols were read count too. */
async function takeBest() {
  if (!isTouched) return byId("symbol-search").blur();
  const text = byId("symbol-search").value;
  await ready().catch(() => {});
  if (byId("symbol-hits").hidden || !hits.length) find(text);
  return hits.length ? take(hits[selected]) : undefined;
}

function take(hit) {
  byId("symbol-search").blur();
  byId("symbol-search").value = hit.symbol;
  choose(hit);
}

function close() {
  show(byId("symbol-hits"), false);
  mark(byId("symbol-search"), "aria-expanded", false);
  mark(byId("symbol-search"), "aria-activedescendant", null);
}
