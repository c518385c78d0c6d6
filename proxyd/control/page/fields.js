// The fields of a rule: how each is called, written into its control, and read from it.

import { h } from './dom.js';

const TIMES = { connect: 'Connect', response: 'Response', body: 'Body', websocketIdle: 'Idle WebSocket' };
const FILES = { ca: 'Private CA', certificate: 'Client certificate', key: 'Key' };

// Groups of [name, kind, label, hint]; a name with a dot is a part of a field.
export const GROUPS = [
  [null, [
    ['name', 'line', 'Name'],
    ['pattern', 'line', 'Pattern', 'ECMAScript regular expression, searched in the path.'],
    ['target', 'line', 'Target', 'URL of the origin server, such as http://127.0.0.1:8080.'],
    ['rewrite', 'line', 'Rewrite', 'The whole new path, such as /$1. Empty: the path as it came.'],
    ['hosts', 'lines', 'Hosts', 'One per line, * stands for anything. Empty: any host.'],
    ['enabled', 'flag', 'Enabled'],
    ['ws', 'flag', 'Takes WebSockets'],
    ['changeOrigin', 'flag', 'Change Host and Origin to the target’s'],
    ['secure', 'flag', 'Verify the target’s certificate'],
  ]],
  ['Headers', [['headers', 'headers', 'Headers', 'Set on the request to the target, or removed from it.']]],
  ['Authentication', [
    ['publicRoutes', 'routes', 'Public routes', 'Globs, one per line, or JSON by method. They need no authentication.'],
    ['auth', 'loose', 'Authentication', 'JSON, or none. Empty: as the service has it.'],
  ]],
  ['WebSockets and pages', [
    ['origins', 'lines', 'Accepted origins', 'Of WebSockets, one per line. Empty: any.'],
    ['base', 'line', 'Base', 'Set as <base href> in HTML answers.'],
    ['relativePaths', 'flag', 'Make paths in HTML answers relative'],
  ]],
  ['Connection to the target', [
    ['proxy', 'loose', 'Proxy', 'direct, env, a URL, or JSON. Empty: as the service has it.'],
    ['endpoint', 'line', 'Endpoint', 'A Twisted client endpoint in place of the target’s host.'],
    ...Object.entries(FILES).map(([name, label]) => [`tls.${name}`, 'line', `TLS: ${label}`, 'A file name.']),
    ['tls.serverName', 'line', 'TLS: Server name'],
  ]],
  ['Time-outs and limits', [
    ...Object.entries(TIMES).map(([name, label]) => [`timeouts.${name}`, 'number', `${label}, seconds`]),
    ['limits.body', 'number', 'Largest request body, octets'],
    ['limits.rate', 'line', 'Requests of one client', 'Such as 10/s, 100/m or 1000/h, or none.'],
  ]],
  ['Id', [['id', 'line', 'Id', 'Letters, digits, dots, - and _. Empty: one is made up.']]],
];

export const FIELDS = GROUPS.flatMap(([, fields]) => fields);

export const NEW = { enabled: true, ws: true, secure: true, headers: {} };

const LONG = new Set(['lines', 'routes', 'loose']);
const REQUIRED = new Set(['name', 'pattern', 'target']);

export const idOf = (name) => `field-${name.replace('.', '-')}`;

export function make([name, kind, label, hint]) {
  const id = idOf(name);
  const error = h('p', { class: 'error', id: `${id}-error`, hidden: true });
  const below = [hint && h('p', { class: 'hint', id: `${id}-hint` }, hint), error];
  const described = hint && `${id}-hint`;
  if (kind === 'headers') {
    const rows = h('div', { class: 'rows' });
    return h('div', { class: 'field wide', id, role: 'group', 'aria-label': label, tabindex: '-1' }, rows, below,
      h('button', { type: 'button', onclick: () => rows.append(headerRow('', '', true)) }, 'Add a header'));
  }
  const common = { id, name, autocomplete: 'off', 'aria-describedby': described };
  if (kind === 'flag') {
    return h('div', { class: 'field flag' }, h('input', { ...common, type: 'checkbox' }),
      h('label', { for: id }, label), below);
  }
  const control = LONG.has(kind)
    ? h('textarea', { ...common, rows: '2', spellcheck: 'false', class: 'code' })
    : h('input', {
      ...common, spellcheck: 'false', required: REQUIRED.has(name), class: name === 'name' ? '' : 'code',
      inputmode: kind === 'number' ? 'decimal' : null,
    });
  return h('div', { class: name === 'name' ? 'field wide' : 'field' }, h('label', { for: id }, label), control, below);
}

export function headerRow(name, value, focus = false) {
  const input = (label, text, part) => h('input', {
    class: `code ${part}`, 'aria-label': label, value: text, autocomplete: 'off', spellcheck: 'false',
    placeholder: label,
  });
  const content = input('Value', value ?? '', 'header-value');
  content.disabled = value === null;
  const remove = h('input', { type: 'checkbox', class: 'header-null', checked: value === null, onchange: (event) => {
    content.disabled = event.target.checked;
  } });
  const row = h('div', { class: 'header-row' }, input('Name', name, 'header-name'), content,
    h('label', {}, remove, ' remove from the request'),
    h('button', { type: 'button', class: 'plain danger', 'aria-label': `Take out the header ${name}`, onclick: () => {
      const rows = row.parentNode;
      row.remove();
      rows.parentNode.focus();
    } }, 'Take out'),
    h('p', { class: 'error', hidden: true }));
  if (focus) requestAnimationFrame(() => row.querySelector('.header-name').focus());
  return row;
}

export function write(form, rule) {
  for (const [name, kind] of FIELDS) {
    const value = part(rule, name);
    const control = form.querySelector(`#${idOf(name)}`);
    if (kind === 'headers') writeHeaders(control, value);
    else if (kind === 'flag') control.checked = Boolean(value);
    else control.value = written(kind, value);
    if (LONG.has(kind)) control.rows = Math.min(10, Math.max(2, control.value.split('\n').length));
  }
}

export function writeHeaders(control, headers) {
  control.querySelector('.rows').replaceChildren(...Object.entries(headers ?? {}).map((one) => headerRow(...one)));
}

function part(rule, name) {
  const [field, inner] = name.split('.');
  return inner ? rule[field]?.[inner] : rule[field];
}

function written(kind, value) {
  if (value === null || value === undefined) return '';
  if (Array.isArray(value)) return value.join('\n');
  return typeof value === 'object' ? JSON.stringify(value, null, 2) : String(value);
}

// The rule that the controls say; `problems` gets what cannot be sent at all.
export function read(form, base, problems = []) {
  const rule = {};
  for (const [name, kind] of FIELDS) {
    const [field, inner] = name.split('.');
    const value = readOne(form.querySelector(`#${idOf(name)}`), kind, (error) => problems.push({ field: name, error }));
    if (inner) rule[field] = { ...base[field], ...rule[field], [inner]: value };
    else rule[field] = value;
  }
  return rule;
}

function readOne(control, kind, refuse) {
  if (kind === 'flag') return control.checked;
  if (kind === 'headers') return readHeaders(control, refuse);
  const text = control.value;
  const lines = text.split('\n').map((line) => line.trim()).filter(Boolean);
  if (kind === 'line') return text === '' ? null : text;
  if (!lines.length) return null;
  if (kind === 'lines') return lines;
  // Whether it is a number that fits is the server's to say.
  if (kind === 'number') return Number.isNaN(Number(text)) ? text : Number(text);
  if (!/^\s*[[{]/.test(text)) return kind === 'routes' ? lines : text.trim();
  try {
    return JSON.parse(text);
  } catch (error) {
    refuse(`is no JSON: ${error.message}`);
    return text;
  }
}

function readHeaders(control, refuse) {
  const headers = {};
  for (const row of control.querySelectorAll('.header-row')) {
    const name = row.querySelector('.header-name').value;
    if (Object.hasOwn(headers, name)) refuse(`${name} is there twice; keep one`);
    Object.defineProperty(headers, name, {
      value: row.querySelector('.header-null').checked ? null : row.querySelector('.header-value').value,
      enumerable: true,
    });
  }
  return headers;
}
