// Views and their addresses.

const NAMES = ["exchange", "market_type", "symbol", "interval"];

/** Read the address: the view, the series, the range, and which parts can't be read. */
export function readAddress() {
  const given = new URLSearchParams(location.search);
  const series = Object.fromEntries(NAMES.map((name) => [name, given.get(name) || null]));
  const [from, to] = [timeIn(given, "from"), timeIn(given, "to")];
  const problems = [from, to].filter((each) => each.problem).map((each) => each.problem);
  if (from.value !== null && to.value !== null && from.value >= to.value) {
    problems.push(`from=${from.value} is not before to=${to.value}`);
  }
  const range = problems.length || from.value === null || to.value === null ? null : { from: from.value, to: to.value };
  return { view: given.get("view") === "store" ? "store" : "explorer", series, range, problems };
}

function timeIn(given, name) {
  const text = given.get(name);
  if (text === null || text === "") return { value: null };
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  const isTime = value <= 8.64e15;
  return isTime ? { value } : { value: null, problem: `${name}=${text} is no time in epoch milliseconds` };
}

export function addressOf(series, range) {
  const parameters = { ...series };
  if (range) Object.assign(parameters, { from: range.from, to: range.to });
  return `/?${new URLSearchParams(parameters)}`;
}

/** Put a view into the address; a new entry of the history unless it replaces the last one. */
export function writeAddress(address, { replaces = false } = {}) {
  if (address === location.pathname + location.search) return;
  if (replaces) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}
