// Which symbols a few typed letters mean, the best first.

const COMMON_QUOTES = ["USDT", "USD", "USDC"];
const FAR = 99;

/** Return the best hits for a text: all its words must be found; near names where none has them. */
export function bestSymbols(symbols, text, most, preferred = null) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const scored = [];
  for (const symbol of symbols) {
    const score = words.reduce((sum, word) => sum + scoreOf(symbol, word), 0);
    if (score < FAR) scored.push([score + habit(symbol, preferred), symbol]);
  }
  if (!scored.length && words.length) return near(symbols, words[words.length - 1], most);
  return scored.sort(byScore).slice(0, most).map(([, symbol]) => symbol);
}

function byScore([left, a], [right, b]) {
  return left - right || a.symbol.length - b.symbol.length || (a.symbol < b.symbol ? -1 : 1);
}

function scoreOf(symbol, word) {
  const name = symbol.symbol.toLowerCase();
  const native = symbol.native_symbol.toLowerCase();
  const base = symbol.base.toLowerCase();
  if (name === word || native === word || base === word) return 0;
  if (symbol.exchange === word || symbol.market_type === word) return 1;
  if (base.startsWith(word)) return 4;
  if (name.startsWith(word) || native.startsWith(word)) return 5;
  if (word.length > 2 && symbol.exchange.startsWith(word)) return 6;
  if (name.includes(word) || native.includes(word)) return 9;
  if (plain(name).includes(plain(word)) && plain(word)) return 10;
  return FAR;
}

const plain = (text) => text.replace(/[^\p{L}\p{N}]/gu, "");

/** Put the usual before the odd: traded, in a common quote, of the exchange that is shown. */
function habit(symbol, preferred) {
  const quote = COMMON_QUOTES.indexOf(symbol.quote);
  return (symbol.active ? 0 : 3) + (quote < 0 ? 1 : quote / 5) + (symbol.exchange === preferred ? 0 : 0.05);
}

function near(symbols, word, most) {
  const wanted = plain(word);
  const furthest = Math.max(1, Math.floor(wanted.length / 3));
  const scored = [];
  for (const symbol of symbols) {
    const names = [plain(symbol.symbol.toLowerCase()), symbol.native_symbol.toLowerCase(), symbol.base.toLowerCase()];
    const distance = Math.min(...names.map((name) => distanceOf(name, wanted, furthest)));
    if (distance <= furthest) scored.push([distance + habit(symbol, null), symbol]);
  }
  return scored.sort(byScore).slice(0, most).map(([, symbol]) => symbol);
}

/** Count the letters to change, drop, add or swap; gives up beyond `furthest`. */
function distanceOf(a, b, furthest) {
  if (Math.abs(a.length - b.length) > furthest) return FAR;
  let [before, last] = [null, Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost);
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwap) row[j] = Math.min(row[j], before[j - 2] + 1);
    }
    [before, last] = [last, row];
  }
  return last[b.length];
}
