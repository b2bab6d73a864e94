// What can be asked for: exchanges, intervals with their grids, symbols; each read once.

import { get } from "./api.js";
import { Grid } from "./grid.js";

const SYMBOLS_A_PAGE = 5000;

let markets = null;
const symbolLists = new Map();

/** Forget everything: another token may see something else. */
export function forgetCatalog() {
  markets = null;
  symbolLists.clear();
}

/** Return every market: exchange, title, market type and its intervals. */
export function readMarkets() {
  markets ??= loadMarkets().catch((error) => {
    markets = null;
    throw error;
  });
  return markets;
}

async function loadMarkets() {
  const [{ exchanges }, { intervals }] = await Promise.all([get("/meta/exchanges"), get("/meta/intervals")]);
  return exchanges.flatMap((each) =>
    each.market_types.map((market) => ({
      exchange: each.exchange,
      title: each.name,
      market_type: market,
      intervals: intervals.filter((one) => one.exchange === each.exchange && one.market_type === market),
    })),
  );
}

/** Return the symbols of a market; asked for again after a failure. */
export function readSymbols({ exchange, market_type: market }) {
  const key = `${exchange} ${market}`;
  if (!symbolLists.has(key)) {
    const list = loadSymbols(exchange, market);
    symbolLists.set(key, list);
    list.catch(() => symbolLists.delete(key));
  }
  return symbolLists.get(key);
}

async function loadSymbols(exchange, market) {
  const parameters = new URLSearchParams({ exchange, market_type: market, limit: SYMBOLS_A_PAGE });
  const found = [];
  for (let path = `/meta/symbols?${parameters}`; path; ) {
    const page = await get(path);
    found.push(...page.symbols);
    path = page.next;
  }
  return found;
}

/** Return the market of a series and the grid of its interval; undefined where there is none. */
export async function findMarket({ exchange, market_type: market, interval }) {
  const found = (await readMarkets()).find((each) => each.exchange === exchange && each.market_type === market);
  const offered = found?.intervals.find((each) => each.interval === interval);
  return { market: found, grid: offered && new Grid(offered.grid) };
}

/** Return what is listed of a symbol, by either name; null where the list can't be had or lacks it. */
export async function findSymbol(series) {
  const list = await readSymbols(series).catch(() => []);
  const named = (name) => list.find((each) => each[name] === series.symbol);
  return named("symbol") ?? named("native_symbol") ?? null;
}
