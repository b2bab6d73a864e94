// Taking a view home: as text for other programs, or as a file.

import { send, seriesPath } from "./api.js";
import { byId, element, show } from "./dom.js";
import { setUpMenu } from "./menus.js";

// How ccxt spells the exchanges of this service.
const CCXT = { binance: "binanceusdm", coinbase: "coinbaseexchange", hyperliquid: "hyperliquid" };
const FORMATS = { CSV: "csv", Parquet: "parquet" };

const json = JSON.stringify;
const address = ({ series, range }, format) => {
  const query = new URLSearchParams({ start: range.from, end: range.to, ...(format && { format }) });
  return `${location.origin}${seriesPath("candles", series)}?${query}`;
};

const TEXTS = {
  curl: (view) => `curl --silent --fail-with-body -H "Authorization: Bearer $MDP_TOKEN" \\\n  '${address(view).replaceAll("'", "%27")}'\n`,

  "Python client": ({ series, range }) => `# pip install mdp-client; the token is read from $MDP_TOKEN
from mdp_client import Client

client = Client(${json(location.origin)})
candles = client.candles(
    ${json(series.exchange)}, ${json(series.market_type)}, ${json(series.symbol)}, ${json(series.interval)}, start=${range.from}, end=${range.to}
)
print(len(candles), candles.complete)
`,

  pandas: (view) => `# The token is read from $MDP_TOKEN
import os

import pandas as pd

frame = pd.read_csv(
    ${json(address(view, "csv"))},
    storage_options={"Authorization": f"Bearer {os.environ['MDP_TOKEN']}"},
)
frame["time"] = pd.to_datetime(frame["time"], unit="ms", utc=True)
frame = frame.set_index("time")
print(frame)
`,

  ccxt: ({ series, range, symbol, slots }) => `# pip install "mdp-client[ccxt]"; the token is read from $MDP_TOKEN
import ccxt
from mdp_client import Client
from mdp_client.ccxt import with_store

exchange = with_store(ccxt.${CCXT[series.exchange] ?? series.exchange}(), Client(${json(location.origin)}))
rows = exchange.fetch_ohlcv(
    ${json(symbol?.ccxt_symbol ?? series.symbol)}, ${json(series.interval)}, since=${range.from}, limit=${slots}, params={"until": ${range.to - 1}}
)
print(len(rows))
`,
};

/** Set up both menus; `view` gives the series, range, symbol and slots that are on the screen. */
export function setUpTaking(view, { onProblem, onBusy }) {
  const copies = Object.keys(TEXTS).map((name) => [name, () => copy(name, view())]);
  setUpMenu(byId("copy-as"), copies);
  const files = Object.entries(FORMATS).map(([label, format]) => [label, () => download(label, format, view(), { onProblem, onBusy })]);
  setUpMenu(byId("download"), files);
  byId("copied-close").addEventListener("click", () => show(byId("copied"), false));
}

async function copy(name, view) {
  if (!view) return;
  const text = TEXTS[name](view);
  byId("copied-text").textContent = text;
  show(byId("copied"));
  try {
    await navigator.clipboard.writeText(text);
    byId("copied-note").textContent = `${name}: copied to the clipboard.`;
  } catch {
    byId("copied-note").textContent = `${name}: the browser gives no access to the clipboard; copy it from here.`;
  }
}

async function download(label, format, view, { onProblem, onBusy }) {
  if (!view) return;
  if (view.isMissing) {
    onProblem(new Error("Some of this view is not fetched yet, and a file of it would lack that: fetch it first."));
    return;
  }
  onBusy(`Making ${label}…`);
  try {
    const { series, range } = view;
    const query = new URLSearchParams({ start: range.from, end: range.to, format });
    const response = await send(`${seriesPath("candles", series)}?${query}`, { accept: "*/*" });
    if (response.status === 202) throw new Error("Much of this view is not stored yet: fetch it first.");
    const name = [series.exchange, series.market_type, series.symbol, series.interval, day(range.from), day(range.to)].join("_");
    save(await response.blob(), `${name.replaceAll(/[^\p{L}\p{N}._-]/gu, "-")}.${format}`);
  } catch (error) {
    onProblem(error);
  } finally {
    onBusy("");
  }
}

const day = (ms) => new Date(ms).toISOString().slice(0, 16).replace(/[-:]/g, "");

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
