// What was changed, by whom, and taking it back.

import { call } from './api.js';
import { ask, find, h, reconcile, say } from './dom.js';
import { change as changing, nameOf } from './rules.js';

const LIMIT = 50;
const WORDS = {
  create: 'added', update: 'changed', toggle: 'switched', delete: 'deleted', reorder: 'reordered', rollback: 'rolled back',
};

const list = find('#history');
const when = new Intl.DateTimeFormat('en', { dateStyle: 'medium', timeStyle: 'medium' });

let changes = [];
let isWhole = false;
let mayWrite = false;

export function allow(write) {
  mayWrite = write;
}

const pageOf = async (query) => (await call('GET', `api/history?limit=${LIMIT}${query}`)).body;

export function load() {
  return showing(async () => {
    const page = await pageOf('');
    const oldest = page.at(-1)?.id ?? 0;
    // Who has turned back pages keeps them, unless so much is new that some between are missing.
    const kept = changes.some((one) => one.id >= oldest) ? changes.filter((one) => one.id < oldest) : [];
    if (!kept.length) isWhole = page.length < LIMIT;
    changes = [...page, ...kept];
  });
}

function loadOlder() {
  return showing(async () => {
    const last = changes.at(-1).id;
    const page = await pageOf(`&before=${last}`);
    isWhole = page.length < LIMIT;
    changes = [...changes.filter((one) => one.id >= last), ...page];
  });
}

async function showing(run) {
  try {
    await run();
    find('#older').hidden = isWhole;
    find('#history-none').hidden = changes.length > 0;
    reconcile(list, changes, (one) => one.id, make, () => {});
  } catch (error) {
    if (error.status !== 401) say(error.message, true);
  }
}

function make(one) {
  const name = nameIn(one);
  const back = mayWrite && h('button', {
    type: 'button', 'data-action': 'back', 'aria-label': `Roll back change ${one.id}`, onclick: () => rollBack(one),
  }, 'Roll back');
  return h('li', { class: 'card', value: one.id },
    h('div', { class: 'head' },
      h('h3', {}, h('span', { class: `badge ${one.action}` }, WORDS[one.action] ?? one.action), ` ${name}`), back),
    h('p', { class: 'quiet' }, `Change ${one.id} by `, h('strong', {}, one.who), ', ',
      h('time', { datetime: one.at }, when.format(new Date(one.at)))),
    Array.isArray(one.before) || Array.isArray(one.after) ? places(one) : difference(one));
}

const nameIn = (one) => one.rule === null ? 'the rules' : one.after?.name ?? one.before?.name ?? one.rule;

function difference({ before, after }) {
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])]
    .filter((name) => JSON.stringify(before?.[name]) !== JSON.stringify(after?.[name]));
  const rows = names.map((name) => [name, text(before?.[name]), text(after?.[name])]);
  if (before === null) return table(['Field', 'Added'], rows.map(([name, , added]) => [name, h('ins', {}, added)]));
  if (after === null) return table(['Field', 'Deleted'], rows.map(([name, gone]) => [name, h('del', {}, gone)]));
  return table(['Field', 'Before', 'After'], rows.map(([name, old, now]) => [name, shown('del', old), shown('ins', now)]));
}

function places({ before, after }) {
  const moved = after.filter((id, index) => before[index] !== id);
  const rows = moved.map((id) => [nameOf(id), String(before.indexOf(id) + 1), String(after.indexOf(id) + 1)]);
  return table(['Rule', 'Place before', 'Place after'], rows);
}

const shown = (tag, value) => value ? h(tag, {}, value) : h('span', { class: 'quiet' }, 'not set');

function text(value) {
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function table(heads, rows) {
  if (!rows.length) return h('p', { class: 'quiet' }, 'Nothing differs.');
  return h('table', { class: 'cards difference', role: 'table' },
    h('thead', { role: 'rowgroup' },
      h('tr', { role: 'row' }, heads.map((head) => h('th', { role: 'columnheader', scope: 'col' }, head)))),
    h('tbody', { role: 'rowgroup' }, rows.map(([name, ...values]) => h('tr', { role: 'row' },
      h('th', { role: 'rowheader', scope: 'row' }, name),
      values.map((value, index) => h('td', { role: 'cell', 'data-label': heads[index + 1] }, value))))));
}

async function rollBack(one) {
  const isSure = await ask({
    title: 'Roll back?', yes: 'Roll back',
    text: one.rule === null
      ? `The rules get the order that they had before change ${one.id}.`
      : `“${nameIn(one)}” ${one.before === null ? 'is deleted: it did not exist' : 'becomes what it was'} before change ${one.id}.`,
  });
  if (!isSure) return;
  await changing(() => call('POST', `api/history/${one.id}/rollback`, { body: {} }), `Change ${one.id} was rolled back.`);
  await load();
}

find('#older').addEventListener('click', loadOlder);
