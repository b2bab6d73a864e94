// Where the page begins: the token, the address, and one of the two views.

import { forgetCatalog } from "./catalog.js";
import { byId, mark, show } from "./dom.js";
import { clearProblem } from "./errors.js";
import { Explorer } from "./explorer.js";
import { readAddress } from "./permalink.js";
import { Store } from "./store.js";
import { setUpToken, token } from "./token.js";

const explorer = new Explorer();
const store = new Store();

/** Show what the address says; without a token only that it is wanted. */
function route() {
  const address = readAddress();
  const isStore = address.view === "store";
  clearProblem();
  explorer.leave();
  store.leave();
  show(byId("explorer"), !isStore && token.mayRead());
  show(byId("store"), isStore && token.mayRead());
  mark(byId("to-explorer"), "aria-current", isStore ? null : "page");
  mark(byId("to-store"), "aria-current", isStore ? "page" : null);
  if (!token.mayRead()) return;
  if (isStore) store.open();
  else explorer.open(address);
}

/** Go from view to view without loading the page anew. */
function onLink(event) {
  const link = event.target.closest("a[href^='/']");
  const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || !link.pathname.endsWith("/") || link.target) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  route();
}

document.addEventListener("click", onLink);
window.addEventListener("popstate", route);
setUpToken(() => {
  forgetCatalog();
  route();
});
route();
