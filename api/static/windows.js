// Windows of coverage: half-open, ascending, each in one state.

export const STORED = new Set(["covered", "candles", "no_candles", "unconfirmed"]);
const WITH_OR_WITHOUT = new Set(["candles", "no_candles"]);

/** Return the parts of windows inside `[start, end)`. */
export function clip(windows, start, end) {
  return windows
    .filter((each) => each.end > start && each.start < end)
    .map((each) => ({ ...each, start: Math.max(each.start, start), end: Math.min(each.end, end) }));
}

/** Join neighbours of one state; what was answered stays apart from what was not. */
export function join(windows) {
  const joined = [];
  for (const each of windows) {
    const last = joined.at(-1);
    const isAlike = last && last.state === each.state && Boolean(last.isProvisional) === Boolean(each.isProvisional);
    if (isAlike && last.end === each.start) last.end = each.end;
    else joined.push({ ...each });
  }
  return joined;
}

/** Return windows as they are shown: a covered one is split only where it has a hole. */
export function asShown(windows) {
  const shown = [];
  for (const run of runs(windows, (each) => WITH_OR_WITHOUT.has(each.state))) {
    const isWhole = run.every((each) => each.state === "candles");
    if (isWhole) shown.push({ start: run[0].start, end: run.at(-1).end, state: "covered" });
    else shown.push(...run);
  }
  return shown;
}

/** Split windows into runs of neighbours that are alike; others stand alone. */
function runs(windows, isAlike) {
  const found = [];
  for (const each of windows) {
    const run = found.at(-1);
    const last = run?.at(-1);
    if (last && isAlike(last) && isAlike(each) && last.end === each.start) run.push(each);
    else found.push([each]);
  }
  return found;
}

/** Return the hulls of neighbouring windows that may be asked for in one request. */
export function askable(windows, isAsked) {
  return runs(windows.filter(isAsked), () => true).map((run) => ({ start: run[0].start, end: run.at(-1).end, run }));
}
