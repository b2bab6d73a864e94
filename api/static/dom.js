// Small helpers over the document; text always goes in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

/** Build an element with properties, attributes (names with a dash, role) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function show(node, isShown = true) {
  node.hidden = !isShown;
}

/** Set or remove an attribute. */
export function mark(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else node.setAttribute(name, String(value));
}

/** Write a text, unless it stands there: most frames change nothing. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
