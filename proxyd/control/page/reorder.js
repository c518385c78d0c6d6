// Moving rules: by dragging their handle, by keys on the handle, or by the buttons up and down.
// A lifted row moves among the rows that may be moved and seen; where it is put down, the new order is sent.

import { say } from './dom.js';

const EDGE = 60;

let body = null;
let send = null;
let lifted = null;

export const isLifted = () => lifted !== null;

export function start(table, sendOrder) {
  body = table;
  send = sendOrder;
  body.addEventListener('click', step);
  body.addEventListener('keydown', onKey);
  body.addEventListener('pointerdown', onPress);
  body.addEventListener('focusout', (event) => {
    if (lifted?.byKey && !lifted.moving && event.target === lifted.handle) cancel();
  });
}

const movable = () => [...body.children].filter((row) => !row.classList.contains('fixed') && !row.hidden);
const all = () => [...body.children].filter((row) => !row.classList.contains('fixed'));
const nameOf = (row) => row.querySelector('strong').textContent;
const placeOf = (row) => `place ${all().indexOf(row) + 1} of ${all().length}`;

function lift(handle, byKey) {
  const row = handle.closest('tr');
  lifted = { row, handle, byKey, next: row.nextElementSibling, before: order() };
  row.classList.add('lifted');
  if (byKey) handle.setAttribute('aria-pressed', 'true');
}

const order = () => all().map((row) => row.dataset.key);

// Take a row before another one; null is the end.
function put(row, next) {
  if (row === next || row.nextElementSibling === next) return;
  if (lifted) lifted.moving = true;
  const focus = row.contains(document.activeElement) ? document.activeElement : null;
  body.insertBefore(row, next);
  focus?.focus();
  if (lifted) lifted.moving = false;
}

function shift(row, by) {
  const rows = movable();
  const now = rows.indexOf(row);
  const to = Math.max(0, Math.min(rows.length - 1, now + by));
  if (to < now) put(row, rows[to]);
  if (to > now) put(row, rows[to].nextElementSibling);
  return to !== now;
}

function letGo() {
  const was = lifted;
  lifted = null;
  was.row.classList.remove('lifted');
  was.handle.removeAttribute('aria-pressed');
  return was;
}

function drop() {
  const was = letGo();
  if (String(order()) === String(was.before)) say(`${nameOf(was.row)} stays where it was.`);
  else send(order());
}

function cancel() {
  put(lifted.row, lifted.next);
  say(`${nameOf(letGo().row)} is back where it was.`);
}

// By buttons

function step(event) {
  const button = event.target.closest('.up, .down');
  if (!button) return;
  const row = button.closest('tr');
  if (shift(row, button.classList.contains('up') ? -1 : 1)) send(order());
  else say(`${nameOf(row)} is ${button.classList.contains('up') ? 'first' : 'last'} already.`);
}

// By keys

function onKey(event) {
  const handle = event.target.closest('.move');
  if (!handle || (lifted && !lifted.byKey)) return;
  const row = handle.closest('tr');
  const far = all().length;
  const steps = { ArrowUp: -1, ArrowDown: 1, Home: -far, End: far };
  if (event.key === ' ' || event.key === 'Enter') {
    if (lifted) drop();
    else {
      lift(handle, true);
      say(`${nameOf(row)} is lifted, ${placeOf(row)}. Arrow keys move it, Space puts it down, Escape takes it back.`);
    }
  } else if (lifted && event.key in steps) {
    shift(row, steps[event.key]);
    handle.scrollIntoView({ block: 'nearest' });
    say(`${nameOf(row)}: ${placeOf(row)}.`);
  } else if (lifted && event.key === 'Escape') {
    cancel();
  } else {
    return;
  }
  event.preventDefault();
}

// By pointer: mouse, pen or finger

function onPress(event) {
  const handle = event.target.closest('.move');
  if (!handle || event.button !== 0 || lifted) return;
  lift(handle, false);
  // Not the handle: what is moved in the document loses the pointer.
  body.setPointerCapture(event.pointerId);
  const stop = new AbortController();
  const listen = (target, type, run) => target.addEventListener(type, run, { signal: stop.signal });
  const end = (run) => () => {
    stop.abort();
    run();
  };
  listen(body, 'pointermove', (move) => follow(move.clientY));
  listen(body, 'pointerup', end(drop));
  listen(body, 'pointercancel', end(cancel));
  listen(document, 'keydown', (key) => key.key === 'Escape' && end(cancel)());
}

function follow(y) {
  if (y < EDGE) scrollBy(0, -EDGE / 4);
  if (y > innerHeight - EDGE) scrollBy(0, EDGE / 4);
  const rows = movable().filter((row) => row !== lifted.row);
  const next = rows.find((row) => {
    const box = row.getBoundingClientRect();
    return y < box.top + box.height / 2;
  });
  // A row keeps the rows behind it that the filter hides.
  put(lifted.row, next ?? rows.at(-1)?.nextElementSibling ?? null);
}
