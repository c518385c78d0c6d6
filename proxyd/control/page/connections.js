// Requests and WebSockets under way, and closing them.

import { call } from './api.js';
import { ask, find, h, labelled, reconcile, say, setText } from './dom.js';
import { nameOf } from './rules.js';

const MOST = 200;
const CODES = [['1012', '1012: the service restarts'], ['1001', '1001: going away']];

const body = find('#connections tbody');
const LABELS = [...document.querySelectorAll('#connections th')].map((head) => head.textContent);

let live = [];
let mayWrite = false;

export function allow(write) {
  mayWrite = write;
}

export async function load() {
  live = (await call('GET', 'api/connections')).body;
  reconcile(body, live.slice(0, MOST), (one) => one.id, make, fill);
  const more = live.length > MOST ? `; the ${MOST} oldest are shown` : '';
  setText(find('#connections-count'), `${live.length} under way, the oldest first${more}.`);
  find('#close-rule').hidden = !mayWrite || !live.length;
}

function make(one) {
  const cells = LABELS.slice(0, -1).map((label) => h('td', { role: 'cell', 'data-label': label }));
  const close = mayWrite && h('button', {
    type: 'button', class: 'plain danger', 'data-action': 'close', onclick: () => closeOne(one),
    'aria-label': `Close connection ${one.id} of ${one.client}`,
  }, 'Close');
  return h('tr', { role: 'row' }, cells, h('td', { role: 'cell', class: 'actions' }, close));
}

function fill(row, one) {
  const texts = [
    `${one.kind === 'websocket' ? 'WebSocket' : 'HTTP'}, ${one.state}`, one.client, `${one.method} ${one.path}`,
    one.rule ? `${nameOf(one.rule)} → ${one.target}` : 'none', age(one.age), flow(one.fromClient), flow(one.fromTarget),
  ];
  texts.forEach((text, index) => setText(row.cells[index], text));
}

function age(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

function flow({ octets, messages, paused }) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(octets || 1) / 10));
  const size = octets / 1024 ** power;
  const count = messages === null ? '' : `, ${messages} ${messages === 1 ? 'message' : 'messages'}`;
  return `${power && size < 10 ? size.toFixed(1) : size.toFixed(0)} ${units[power]}${count}${paused ? ', paused' : ''}`;
}

const codes = () => h('select', { id: 'close-code' }, CODES.map(([code, text]) => h('option', { value: code }, text)));

async function closeOne(one) {
  const code = codes();
  const isWebSocket = one.kind === 'websocket';
  const isSure = await ask({
    title: 'Close this connection?', yes: 'Close it', more: isWebSocket ? [labelled('Close code', code)] : [],
    text: `${one.method} ${one.path} of ${one.client} ${isWebSocket ? 'is closed.' : 'is cut off.'}`,
  });
  if (isSure) await close(`api/connections/${one.id}?code=${code.value}`);
}

async function closeRule() {
  const ids = [...new Set(live.map((one) => one.rule))].filter(Boolean);
  const rule = h('select', { id: 'close-which' }, ids.map((id) => h('option', { value: id }, nameOf(id))));
  const spread = h('input', { id: 'close-spread', inputmode: 'decimal', value: '0', autocomplete: 'off' });
  const code = codes();
  const isSure = await ask({
    title: 'Close all connections of a rule?', yes: 'Close all',
    text: 'WebSockets are closed with the code; requests are cut off.',
    more: [labelled('Rule', rule), labelled('Close code', code),
      labelled('Spread, seconds', spread, 'In which time they are closed, one after the other.')],
  });
  if (isSure) await close(`api/connections?${new URLSearchParams({ rule: rule.value, code: code.value, spread: spread.value })}`);
}

async function close(path) {
  try {
    const { closing } = (await call('DELETE', path)).body;
    say(closing === 1 ? 'One connection is closed.' : `${closing} connections are being closed.`);
    await load();
  } catch (error) {
    say(error.message, true);
  }
  if (document.activeElement === document.body) find('#connections-title').focus();
}

find('#close-rule').addEventListener('click', closeRule);
