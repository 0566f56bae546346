// Short ways to make and fill elements.

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'data') Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

/** An HTML element: attributes, `onclick` and such, and children. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(
    document.createElementNS('http://www.w3.org/2000/svg', tag),
    attributes, children);
}

/** Sets an attribute only where it differs, which spares layout. */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Sets the text only where it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const CONTROLS = 'button, input, select';

/** Does `work`, which makes the controls within `root` anew; the focus stays
 * at its place among them, or goes to `otherwise` where none are left. */
export function keepingFocus(root, work, otherwise = null) {
  const controls = () => [...root.querySelectorAll(CONTROLS)];
  const at = controls().indexOf(document.activeElement);
  work();
  if (at < 0) return;
  const now = controls();
  (now[Math.min(at, now.length - 1)] ?? otherwise)?.focus(
    {preventScroll: true});
}
