// Making elements, keeping lists of them, telling and asking.
// All text becomes text nodes: nothing that the API says is ever read as HTML.

const SVG = 'http://www.w3.org/2000/svg';
const MESSAGE_MS = 8000;

export const find = (selector, inside = document) => inside.querySelector(selector);

// `on…` properties are listeners; false and null leave an attribute out.
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export function icon(path) {
  return svg('svg', { viewBox: '0 0 16 16', 'aria-hidden': 'true', class: 'icon' }, svg('path', { d: path }));
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Make the children of `parent` be those of `items`, in their order; elements that stay are not touched but by `fill`.
export function reconcile(parent, items, keyOf, make, fill) {
  const focus = focused(parent);
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const child = old.get(key) ?? make(item);
    old.delete(key);
    child.dataset.key = key;
    fill(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
  refocus(parent, focus);
}

// Which control of a list has the focus, by its row and its name: it may be made anew.
export function focused(parent) {
  const control = document.activeElement;
  const row = parent.contains(control) && control.closest('[data-key]');
  return row ? { key: row.dataset.key, action: control.dataset.action } : null;
}

export function refocus(parent, focus) {
  if (!focus || parent.contains(document.activeElement)) return;
  const row = [...parent.children].find((child) => child.dataset.key === focus.key);
  row?.querySelector(`[data-action="${focus.action}"]`)?.focus();
}

// Tell what has happened, to eyes and ears; what went wrong stays until it is dismissed.
export function say(text, bad = false) {
  const message = h('div', { class: bad ? 'message bad' : 'message' }, h('p', {}, text));
  message.append(h('button', { type: 'button', 'aria-label': 'Dismiss', onclick: () => message.remove() }, '×'));
  find('#messages').replaceChildren(message);
  if (!bad) setTimeout(() => message.remove(), MESSAGE_MS);
}

// Ask before something is done; `more` are further controls. Escape and Cancel are no.
export function ask({ title, text, yes, no = 'Cancel', more = [] }) {
  const dialog = find('#ask');
  const before = document.activeElement;
  setText(find('#ask-title'), title);
  setText(find('#ask-text'), text);
  setText(find('#ask-yes'), yes);
  setText(find('#ask-no'), no);
  find('#ask-more').replaceChildren(...more);
  return new Promise((resolve) => {
    let answer = false;
    find('form', dialog).onsubmit = (event) => {
      event.preventDefault();
      answer = true;
      dialog.close();
    };
    find('#ask-no').onclick = () => dialog.close();
    dialog.onclose = () => {
      if (before?.isConnected) before.focus();
      resolve(answer);
    };
    dialog.showModal();
    find('#ask-no').focus();
  });
}

export function labelled(label, control, hint = null) {
  control.id ||= `control-${label.toLowerCase().replace(/\W+/g, '-')}`;
  if (hint) control.setAttribute('aria-describedby', `${control.id}-hint`);
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control,
    hint && h('p', { class: 'hint', id: `${control.id}-hint` }, hint));
}

export function showProblem(element, text) {
  element.hidden = !text;
  setText(element, text);
}

// Focus a section's heading, when what it shows has changed.
export function focusHeading(section) {
  find('h2', section)?.focus();
}
