// The page as a whole: signing in, the state of the service, and which section is shown.

import { call, events, token } from './api.js';
import * as charts from './charts.js';
import * as connections from './connections.js';
import { find, focusHeading, h, reconcile, say, setText, showProblem } from './dom.js';
import * as explain from './explain.js';
import * as history from './history.js';
import * as rules from './rules.js';

const PERIOD_MS = 2000;
// Rules of the file change without a new revision of the store: the list is asked for now and then.
const PERIODS_PER_LIST = 5;
const VIEWS = { rules: 'Rules', explain: 'Explain', connections: 'Connections', history: 'History' };

let view = 'rules';
let role = null;
let seen = null;
let away = null;
let periods = 0;
let timer = null;
let running = false;

// The state of the service, again and again

async function tick() {
  clearTimeout(timer);
  if (running) return;
  running = true;
  let goOn = true;
  try {
    show((await call('GET', 'api/status')).body);
    if (view === 'connections') await connections.load();
    if (periods++ % PERIODS_PER_LIST === 0) await rules.load();
  } catch (error) {
    goOn = error.status !== 401;
    if (goOn) fail(error);
  } finally {
    running = false;
  }
  if (goOn && !document.hidden) timer = setTimeout(tick, PERIOD_MS);
}

function fail(error) {
  charts.pause();
  showBanners([{ key: 'away', bad: true, text: `${error.message} Trying again every two seconds.` }]);
}

function show(status) {
  away = status.store.away;
  if (role !== status.role) start(status.role);
  const now = `${status.started} ${status.store.revision}`;
  if (seen !== null && seen !== now) {
    rules.load();
    if (view === 'history') history.load();
  }
  seen = now;
  setText(find('#service'), `${status.version}, up ${duration(status.uptime)}, ` +
    `${status.store.kind} store${status.draining ? ', draining' : ''}`);
  showBanners(bannersOf(status));
  charts.show(status);
}

function bannersOf(status) {
  const found = [];
  const add = (key, text, bad = false) => found.push({ key, text, bad });
  if (away) add('store', `The store of rules cannot be reached; nothing can be changed: ${away}`, true);
  if (status.reloadError) {
    add('reload', `The configuration was not reloaded, the old one is in force: ${status.reloadError}`, true);
  }
  if (status.draining) add('drain', 'proxyd is draining: it takes no new connections and ends when all are done.', true);
  if (status.restartNeeded.length) {
    add('restart', `Changed in the configuration, but only in force after a restart: ${status.restartNeeded.join(', ')}`);
  }
  if (status.rules.unusable) {
    add('unusable', `Rules of the store that cannot be used and are not in force: ${status.rules.unusable}`, true);
  }
  if (status.role !== 'write') add('role', 'You may read everything here, and change nothing.');
  return found;
}

function showBanners(banners) {
  reconcile(find('#banners'), banners, (one) => one.key,
    (one) => h('p', { class: one.bad ? 'banner bad' : 'banner', role: one.bad ? 'alert' : 'status' }),
    (element, one) => setText(element, one.text));
}

function duration(seconds) {
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = Math.max(0, parts.findIndex(([size]) => seconds >= size));
  if (seconds < 1) return '0 s';
  let left = seconds;
  return parts.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(left / size);
    left -= count * size;
    return `${count} ${unit}`;
  }).join(' ');
}

// Who may do what

function start(newRole) {
  role = newRole;
  const mayWrite = role === 'write';
  find('#content').hidden = find('#sections').hidden = false;
  find('#reload').hidden = !mayWrite;
  find('#forget').hidden = token.get() === null;
  find('#show-sign-in').hidden = true;
  for (const part of [rules, connections, history]) part.allow(mayWrite);
  periods = 0;
  open(location.hash.slice(1), false);
}

function askForToken() {
  const dialog = find('#sign-in');
  find('#show-sign-in').hidden = false;
  find('#forget').hidden = true;
  if (!dialog.open) dialog.showModal();
}

async function signIn(event) {
  event.preventDefault();
  const dialog = find('#sign-in');
  const input = find('#token');
  const problem = find('.problem', dialog);
  const text = input.value.trim();
  const refuse = (message) => {
    showProblem(problem, message);
    input.setAttribute('aria-invalid', 'true');
    input.select();
    input.focus();
  };
  // What is not ASCII cannot be sent.
  if (!/^[!-~]+$/.test(text)) return refuse(text ? 'This token is not known here.' : 'A token is needed.');
  token.set(text);
  try {
    await call('GET', 'api/status');
  } catch (error) {
    token.forget();
    return refuse(error.message);
  }
  input.value = '';
  input.removeAttribute('aria-invalid');
  showProblem(problem, '');
  find('#show-sign-in').hidden = true;
  find('#forget').hidden = false;
  dialog.close();
  tick();
}

async function reload() {
  try {
    const { rules: count, restartNeeded } = (await call('POST', 'api/reload', { body: {} })).body;
    say(`The configuration was reloaded: ${count} rules.` + (restartNeeded.length ? ' A restart is needed.' : ''));
    rules.load();
  } catch (error) {
    say(error.message, true);
  }
  tick();
}

// Sections

function open(name, byUser = true) {
  if (name in VIEWS) view = name;
  for (const one of Object.keys(VIEWS)) find(`#view-${one}`).hidden = one !== view;
  for (const link of find('#sections').children) {
    if (link.hash === `#${view}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${VIEWS[view]} – proxyd`;
  if (role === null) return;
  if (view === 'connections') connections.load().catch(() => tick());
  if (view === 'history') history.load();
  if (byUser && name in VIEWS) focusHeading(find(`#view-${view}`));
}

find('#sign-in form').addEventListener('submit', signIn);
find('#show-sign-in').addEventListener('click', askForToken);
find('#reload').addEventListener('click', reload);
find('#forget').addEventListener('click', () => {
  token.forget();
  // Nothing of what was read stays.
  location.reload();
});
events.addEventListener('signin', askForToken);
document.addEventListener('visibilitychange', () => document.hidden || tick());
addEventListener('hashchange', () => open(location.hash.slice(1)));
explain.start();
tick();
