// Menus behind buttons, as the ARIA authoring practices describe them.

import { element, mark } from "./dom.js";

/** Give a button a menu: `[label, action]` for each item. */
export function setUpMenu(button, items) {
  let menu = null;

  function open(index = 0) {
    close();
    menu = element("div", { role: "menu", className: "menu", "aria-labelledby": button.id });
    for (const [label, action] of items) {
      const item = element("button", { type: "button", role: "menuitem", tabIndex: -1 }, label);
      item.addEventListener("click", () => {
        close();
        button.focus();
        action();
      });
      menu.append(item);
    }
    menu.addEventListener("keydown", onKey);
    menu.addEventListener("focusout", (event) => {
      if (menu && !menu.contains(event.relatedTarget) && event.relatedTarget !== button) close();
    });
    button.after(menu);
    mark(button, "aria-expanded", true);
    focus(index);
  }

  function close() {
    const closing = menu;
    menu = null;
    closing?.remove();
    mark(button, "aria-expanded", false);
  }

  const focus = (index) => menu.children[(index + items.length) % items.length].focus();

  function onKey(event) {
    const at = [...menu.children].indexOf(document.activeElement);
    const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (target !== undefined) {
      event.preventDefault();
      focus(target);
    } else if (event.key === "Escape") {
      close();
      button.focus();
    }
  }

  button.addEventListener("click", () => (menu ? close() : open()));
  button.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    open(event.key === "ArrowDown" ? 0 : -1);
  });
  document.addEventListener("pointerdown", (event) => {
    if (menu && !menu.contains(event.target) && event.target !== button) close();
  });
}
