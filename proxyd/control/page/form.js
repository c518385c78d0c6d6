// The dialog in which a rule is added, changed or only looked at.
// Only what was changed is sent, and only if the rule is still what it was; what is wrong with it, the server says.

import { call } from './api.js';
import { ask, find, h } from './dom.js';
import { FIELDS, GROUPS, NEW, idOf, make, read, write, writeHeaders } from './fields.js';

export const events = new EventTarget();

const dialog = find('#rule');
const form = find('form', dialog);
const problem = find('.problem', dialog);
const holder = find('#fields');

let base = {};
let first = {};
let path = null;
let tag = null;
let opener = null;
let asked = null;
let isSaving = false;

for (const [title, fields] of GROUPS) {
  const grid = h('div', { class: 'grid' }, fields.map(make));
  holder.append(title === null ? grid : h('details', {}, h('summary', {}, title), grid));
}

export function add(rule = NEW) {
  open(rule === NEW ? 'Add a rule' : 'Add a copy of a rule', rule);
}

export function edit(rule) {
  open(`Edit ${rule.name}`, rule, { at: `api/rules/${encodeURIComponent(rule.id)}` });
  asked = call('GET', path);
  take(asked);
}

// The rule as it is now, with its tag: it may have been changed since the list was read.
async function take(answer) {
  try {
    const now = await answer;
    if (asked !== answer) return;
    tag = now.tag;
    merge(now.body);
  } catch (error) {
    if (asked === answer) tell([error.message]);
  }
}

export function show(rule) {
  open(rule.name, rule, { fixed: true });
}

function open(title, rule, { at = null, fixed = false } = {}) {
  opener = document.activeElement;
  [base, path, tag, asked] = [rule, at, null, null];
  find('#rule-title').textContent = title;
  clear();
  write(form, rule);
  first = read(form, base);
  for (const details of form.querySelectorAll('details')) details.open = fixed && isUsed(details);
  for (const control of form.querySelectorAll('input, textarea')) {
    if (control.type === 'checkbox') control.disabled = fixed;
    else control.readOnly = fixed;
  }
  for (const button of form.querySelectorAll('#fields button')) button.hidden = fixed;
  find(`#${idOf('id')}`).readOnly ||= at !== null;
  find('#rule-save').hidden = fixed;
  find('#rule-cancel').textContent = fixed ? 'Close' : 'Cancel';
  dialog.showModal();
  find(`#${idOf('name')}`).focus();
}

const isUsed = (details) => [...details.querySelectorAll('input, textarea')]
  .some((control) => control.type === 'checkbox' ? control.checked : control.value);

const changed = (now, then) => Object.keys(now).filter((key) => JSON.stringify(now[key]) !== JSON.stringify(then[key]));

async function save(event) {
  event.preventDefault();
  if (isSaving) return;
  isSaving = true;
  try {
    await asked?.catch(() => null);
    await check();
  } finally {
    isSaving = false;
  }
}

async function check() {
  clear();
  const problems = [];
  const now = read(form, base, problems);
  for (const control of form.querySelectorAll(':required')) {
    if (!control.value) problems.push({ field: control.name, error: 'is required' });
  }
  if (problems.length) return point(problems);
  try {
    await send(now);
  } catch (error) {
    if (path && error.status === 412) return reread();
    if (path && error.status === 404) return becomeNew();
    return error.problems.length ? point(error.problems) : tell([error.message]);
  }
  dialog.close();
  events.dispatchEvent(new CustomEvent('saved', { detail: `${now.name} was saved.` }));
}

async function send(now) {
  if (path) {
    const changes = Object.fromEntries(changed(now, first).map((key) => [key, now[key]]));
    // Without a tag it is not known what is changed: then the server has something else, whatever it is.
    if (Object.keys(changes).length) await call('PUT', path, { body: changes, match: tag ?? '"unknown"' });
    return;
  }
  // What the form does not have, such as `order`, is the server's to fill in.
  const whole = Object.entries(now).filter(([, value]) => value !== null);
  await call('POST', 'api/rules', { body: Object.fromEntries(whole) });
}

// Somebody else was faster

async function reread() {
  try {
    const now = await call('GET', path);
    const both = merge(now.body);
    tag = now.tag;
    tell([
      'Somebody else has changed this rule meanwhile; nothing of yours was saved. What you have not touched now shows' +
      ' the new values.' + (both.length ? ` What you typed is kept, in spite of a new value, in: ${both.join(', ')}.` : ''),
      'Save again to apply your changes.',
    ]);
  } catch (error) {
    if (error.status === 404) becomeNew();
    else tell([error.message]);
  }
}

// Take over a newer rule, but for what was typed; what both have changed is returned.
function merge(rule) {
  const typed = read(form, base);
  const mine = changed(typed, first);
  write(form, { ...rule });
  const theirs = read(form, rule);
  const both = mine.filter((key) => JSON.stringify(theirs[key]) !== JSON.stringify(first[key]));
  write(form, { ...rule, ...Object.fromEntries(mine.map((key) => [key, typed[key]])) });
  [base, first] = [rule, theirs];
  return both;
}

function becomeNew() {
  path = null;
  tell(['Somebody else has deleted this rule meanwhile. Saving adds it as a new one.']);
}

// What is wrong

function clear() {
  problem.hidden = true;
  for (const control of form.querySelectorAll('[aria-invalid]')) {
    control.removeAttribute('aria-invalid');
    const rest = (control.getAttribute('aria-describedby') ?? '').replace(/\s*\S+-error\b/g, '').trim();
    if (rest) control.setAttribute('aria-describedby', rest);
    else control.removeAttribute('aria-describedby');
  }
  for (const text of form.querySelectorAll('.error')) {
    text.hidden = true;
    text.replaceChildren();
  }
}

function tell(texts) {
  problem.replaceChildren(...texts.map((text) => h('p', {}, text)));
  problem.hidden = false;
  problem.focus();
}

// Show each problem at its control, and focus the first one; those of no control are on top.
function point(problems) {
  const others = [];
  for (const { field, error } of problems) {
    const place = placeOf(field);
    if (place) mark(place, error);
    else others.push(`${field}: ${error}`);
  }
  const bad = form.querySelector('[aria-invalid]');
  if (others.length || !bad) return tell(others);
  tell([problems.length === 1 ? 'One thing is wrong.' : `${problems.length} things are wrong.`]);
  bad.focus();
}

// The control of a path such as `hosts.0` or `headers.X-Name`, and what of the path it does not say.
function placeOf(field) {
  const known = FIELDS.map(([name]) => name).filter((name) => field === name || field.startsWith(`${name}.`));
  const name = known.sort((one, other) => other.length - one.length)[0];
  if (!name) return null;
  const control = find(`#${idOf(name)}`);
  const rest = field.slice(name.length + 1);
  if (name !== 'headers') {
    const within = /^\d+$/.test(rest) ? `line ${Number(rest) + 1}` : rest;
    return { control, within, text: find(`#${idOf(name)}-error`) };
  }
  const row = [...control.querySelectorAll('.header-row')].find((one) => find('.header-name', one).value === rest);
  if (!row) return { control, within: rest, text: find(`#${idOf(name)}-error`) };
  return { control: find('.header-name', row), within: '', text: find('.error', row) };
}

function mark({ control, within, text }, error) {
  text.id ||= `header-${[...holder.querySelectorAll('.error')].indexOf(text)}-error`;
  text.append(h('span', {}, within ? `${within}: ${error}` : error));
  text.hidden = false;
  control.setAttribute('aria-invalid', 'true');
  const described = control.getAttribute('aria-describedby') ?? '';
  if (!described.includes(text.id)) control.setAttribute('aria-describedby', `${described} ${text.id}`.trim());
  const details = control.closest('details');
  if (details) details.open = true;
}

// Leaving

async function leave(event) {
  event?.preventDefault();
  const isTouched = !find('#rule-save').hidden && changed(read(form, base), first).length > 0;
  const text = 'What you have typed is not saved.';
  if (!isTouched || await ask({ title: 'Discard your changes?', text, yes: 'Discard', no: 'Keep editing' })) {
    dialog.close();
  }
}

form.addEventListener('submit', save);
find('#rule-cancel').addEventListener('click', leave);
dialog.addEventListener('cancel', leave);
dialog.addEventListener('close', () => {
  writeHeaders(find(`#${idOf('headers')}`), {});
  if (opener?.isConnected) opener.focus();
});
