// The error line: in words, with the way out where there is one.

import { byId, element, show } from "./dom.js";
import { time } from "./format.js";

const TITLES = {
  unreachable: "Service away",
  forbidden: "The token does not allow that",
  unknown_exchange: "No such exchange",
  unknown_market_type: "No such market",
  unknown_symbol: "No such symbol",
  unsupported_interval: "Interval not published",
  history_unavailable: "Older than the exchange remembers",
  upstream_unavailable: "Exchange away",
  upstream_bad_data: "The exchange sent data that can't be right",
  upstream_rejected: "The exchange refused",
  rate_limited: "The exchange's limit is used up",
  overloaded: "The service is busy",
  store_unavailable: "The store is away",
  syncer_unavailable: "Nothing works on large fetches",
  clock_skew: "Clocks disagree",
  quota_exceeded: "Too many jobs at once",
  cancelled: "Cancelled",
  address: "This address can't be read",
};
const LATER = new Set(["unreachable", "upstream_unavailable", "rate_limited", "overloaded", "store_unavailable", "clock_skew"]);

/** Show an error; `actions` are `[label, function]`. A cancelled request is none. */
export function showProblem(problem, actions = []) {
  if (problem.name === "AbortError") return;
  if (problem.status === 401) return clearProblem();
  const node = byId("error");
  const title = TITLES[problem.code] ?? "That did not work";
  const when = problem.retryAfter && LATER.has(problem.code) ? " This page tries again by itself." : "";
  const earliest = problem.body?.earliest ? ` It begins at ${time(problem.body.earliest)} UTC.` : "";
  node.replaceChildren(element("b", {}, `${title}:`), ` ${sentence(problem.message)}${earliest}${when}`);
  node.dataset.code = problem.code ?? "";
  const buttons = element("span", { className: "actions" });
  for (const [label, action] of [...actions, ["Dismiss", clearProblem]]) {
    const button = element("button", { type: "button" }, label);
    button.addEventListener("click", action);
    buttons.append(button);
  }
  node.append(buttons);
  show(node);
}

export function clearProblem() {
  show(byId("error"), false);
  byId("error").replaceChildren();
}

function sentence(text) {
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}
