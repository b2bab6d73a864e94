// The token: out of the address at once, kept for this tab, asked for where there is none.

import { byId, show } from "./dom.js";

const KEY = "mdp-token";
const FIRST_WORDS = "The service answers only with a token that allows reading candles and metadata.";

let kept = sessionStorage.getItem(KEY);
let onChange = () => {};

export const token = {
  get: () => kept,

  /** Return what the token says of itself; an unreadable one says nothing. */
  claims() {
    try {
      const part = kept.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
      return JSON.parse(atob(part));
    } catch {
      return {};
    }
  },

  mayRead: () => kept !== null,
  has: (scope) => (token.claims().scope ?? "").split(" ").includes(scope),

  /** Forget a token that the service refused, and ask for another with the reason. */
  refuse(reason) {
    set(null);
    ask(`The service refused the token: ${reason}. Paste another one.`);
  },
};

/** Take a token out of the fragment, and ask for one where there is none. */
export function setUpToken(whenChanged) {
  onChange = whenChanged;
  takeFromAddress();
  window.addEventListener("hashchange", () => takeFromAddress() && onChange());
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = byId("token-input").value.trim().replace(/^Bearer\s+/i, "");
    if (!given) return;
    set(given);
    onChange();
  });
  byId("token-change").addEventListener("click", () => ask("Paste another token to use from now on."));
  if (kept) set(kept);
  else ask(FIRST_WORDS);
}

function takeFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return false;
  history.replaceState(history.state, "", location.pathname + location.search);
  set(given);
  return true;
}

function set(value) {
  kept = value;
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
  show(byId("token-panel"), value === null);
  show(byId("token-change"), value !== null);
  byId("token-input").value = "";
}

function ask(reason) {
  byId("token-reason").textContent = reason;
  show(byId("token-panel"));
  byId("token-input").focus();
}
