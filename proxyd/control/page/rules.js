// The list of rules: shown in matching order, filtered, switched on and off, deleted.

import { Failure, call } from './api.js';
import { ask, find, focused, h, icon, reconcile, refocus, say, setText } from './dom.js';
import * as form from './form.js';
import { start as startMoves, isLifted } from './reorder.js';

const GRIP = 'M6 3v.01M10 3v.01M6 8v.01M10 8v.01M6 13v.01M10 13v.01';
const UP = 'M8 13V3M4 7l4-4 4 4';
const DOWN = 'M8 3v10M4 9l4 4 4-4';

const body = find('#rules tbody');
const filter = find('#filter');
const drawn = new WeakMap();

let rules = [];
let tag = null;
let mayWrite = false;

export const nameOf = (id) => rules.find((rule) => rule.id === id)?.name ?? id;
export const pathOf = (id) => `api/rules/${encodeURIComponent(id)}`;

export function allow(write) {
  mayWrite = write;
  tag = null;
  find('#add').hidden = !write;
}

export async function load() {
  // What is being moved stays under the hand.
  if (isLifted()) return;
  try {
    const answer = await call('GET', 'api/rules', { known: tag });
    if (answer.body === null || isLifted()) return;
    ({ body: rules, tag } = answer);
    draw();
  } catch (error) {
    // The state of the service is asked for all the time: it tells what cannot be reached.
    if (error.status && error.status !== 401) say(error.message, true);
  }
}

function draw() {
  const places = new Map(rules.map((rule, index) => [rule, index + 1]));
  reconcile(body, rules, (rule) => rule.id, () => h('tr', { role: 'row' }),
    (row, rule) => fill(row, rule, places.get(rule)));
  sift();
}

function fill(row, rule, place) {
  const text = JSON.stringify([rule, place, mayWrite]);
  if (drawn.get(row) === text) return;
  drawn.set(row, text);
  const focus = focused(body);
  row.className = [rule.enabled ? '' : 'off', rule.readonly ? 'fixed' : ''].join(' ').trim();
  row.dataset.text = [rule.name, rule.id, rule.pattern, rule.target, ...rule.hosts ?? []].join('\n').toLowerCase();
  row.replaceChildren(
    h('td', { role: 'cell', class: 'place' }, ...moves(rule, place)),
    h('td', { role: 'cell', class: 'state' }, state(rule)),
    h('td', { role: 'cell', class: 'name' }, h('strong', {}, rule.name), h('span', { class: 'badges' }, badges(rule)),
      rule.problem && h('p', { class: 'wrong' }, `Not in force: ${rule.problem}`)),
    h('td', { role: 'cell', class: 'way' }, h('code', {}, rule.pattern), h('span', { class: 'target' }, target(rule))),
    h('td', { role: 'cell', class: 'actions' }, actions(rule)),
  );
  refocus(body, focus);
}

function moves(rule, place) {
  const number = h('span', { class: 'number' }, String(place));
  if (!mayWrite || rule.readonly) return [number];
  const button = (action, label, path, more = {}) => h('button', {
    type: 'button', class: `icon-button ${action}`, 'data-action': action, title: label,
    'aria-label': `${label}: ${rule.name}`, ...more,
  }, icon(path));
  return [
    button('move', 'Move', GRIP, { 'aria-describedby': 'move-help' }), number,
    button('up', 'Move up', UP), button('down', 'Move down', DOWN),
  ];
}

function state(rule) {
  const word = rule.enabled ? 'on' : 'off';
  if (!mayWrite || rule.readonly) return h('span', { class: `badge ${word}` }, word);
  return h('button', {
    type: 'button', role: 'switch', class: 'switch', 'aria-checked': String(rule.enabled), 'data-action': 'toggle',
    'aria-label': `${rule.name} is on`, title: word, onclick: () => toggle(rule),
  }, h('span', {}));
}

function badges(rule) {
  const found = [];
  if (rule.readonly) found.push('file, read-only');
  if (!rule.ws) found.push('no WebSockets');
  if (rule.auth) found.push(rule.auth === 'none' ? 'no authentication' : `auth: ${Object.keys(rule.auth)[0]}`);
  if (rule.proxy) found.push(rule.proxy === 'direct' ? 'direct' : 'own proxy');
  if (!rule.secure) found.push('certificate not verified');
  if (rule.hosts) found.push(`host ${rule.hosts.join(', ')}`);
  return found.map((text) => h('span', { class: 'badge' }, text));
}

function target(rule) {
  const resolved = rule.resolvedTarget && rule.resolvedTarget !== rule.target ? ` (${rule.resolvedTarget})` : '';
  return [
    h('span', { class: 'unseen' }, 'to '), h('span', { 'aria-hidden': 'true' }, '→ '),
    h('code', {}, rule.target + resolved),
    rule.rewrite && [' as ', h('code', {}, rule.rewrite)],
  ].flat();
}

function actions(rule) {
  const button = (action, label, run, more = '') => h('button', {
    type: 'button', class: `plain ${more}`, 'data-action': action, 'aria-label': `${label} ${rule.name}`, onclick: run,
  }, label);
  if (!mayWrite) return [button('show', 'Show', () => form.show(rule))];
  const copy = button('duplicate', 'Duplicate', () => form.add({ ...rule, id: null, name: `${rule.name} (copy)` }));
  if (rule.readonly) return [button('show', 'Show', () => form.show(rule)), copy];
  return [button('edit', 'Edit', () => form.edit(rule)), copy, button('delete', 'Delete', () => remove(rule), 'danger')];
}

// Changes

// The ETag of a rule, provided that it is still what the page shows.
async function tagOf(rule) {
  const now = await call('GET', pathOf(rule.id));
  if (JSON.stringify(now.body) !== JSON.stringify(rule)) throw new Failure(412, 'changed');
  return now.tag;
}

// Do something, tell of it, and show what is there then.
export async function change(run, done) {
  try {
    await run();
    say(done);
  } catch (error) {
    say(error.status === 412 ? 'Somebody else has changed it. Nothing was done; this is how it is now.' : error.message,
      true);
  }
  await load();
}

function toggle(rule) {
  return change(async () => call('PATCH', `${pathOf(rule.id)}/toggle`, { match: await tagOf(rule) }),
    `${rule.name} is ${rule.enabled ? 'off' : 'on'}.`);
}

async function remove(rule) {
  const isSure = await ask({
    title: 'Delete this rule?', yes: 'Delete',
    text: `“${rule.name}” is deleted at once. The history can bring it back.`,
  });
  if (!isSure) return;
  await change(async () => call('DELETE', pathOf(rule.id), { match: await tagOf(rule) }), `${rule.name} was deleted.`);
  if (document.activeElement === document.body) find('#rules-title').focus();
}

// The filter

function sift() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.children) {
    row.hidden = !words.every((word) => row.dataset.text.includes(word));
    shown += !row.hidden;
  }
  setText(find('#rules-count'), words.length ? `${shown} of ${rules.length} rules` : `${rules.length} rules`);
  const none = find('#rules-none');
  none.hidden = shown > 0;
  setText(none, words.length ? 'No rule has this in its name, id, pattern, target or hosts.' : 'There are no rules yet.');
}

filter.addEventListener('input', sift);
find('#add').addEventListener('click', () => form.add());
form.events.addEventListener('saved', (event) => {
  say(event.detail);
  load();
});

async function reorder(ids) {
  try {
    await call('PUT', 'api/rules/reorder', { body: { ids }, match: tag });
  } catch (error) {
    // The ids are those of the list: when they are wrong, rules have come or gone since.
    throw error.field === 'ids' ? new Failure(412, error.message) : error;
  }
}

startMoves(body, async (ids) => {
  await change(() => reorder(ids), 'The rules are in their new order.');
  // Even when nothing came of it and nothing is new: as it is there.
  draw();
});
