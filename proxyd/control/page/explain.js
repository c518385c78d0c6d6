// The explain box: what would happen to a request.

import { call } from './api.js';
import { find, h, showProblem } from './dom.js';

const form = find('#explain');
const result = find('#explanation');

export function start() {
  form.addEventListener('submit', explain);
}

async function explain(event) {
  event.preventDefault();
  const problem = find('.problem', form);
  const url = form.elements.url;
  url.removeAttribute('aria-invalid');
  showProblem(problem, '');
  try {
    if (!url.value.trim()) throw new Error('The URL is required.');
    const body = { method: form.elements.method.value.trim() || 'GET', url: url.value.trim(), headers: headers() };
    show((await call('POST', 'api/explain', { body })).body);
    find('.banner', result).focus();
  } catch (error) {
    result.replaceChildren();
    showProblem(problem, error.field ? `${error.field}: ${error.message}` : error.message);
    const control = form.elements[error.field?.split('.')[0]] ?? url;
    control.setAttribute('aria-invalid', 'true');
    control.focus();
  }
}

function headers() {
  const lines = form.elements.headers.value.split('\n').filter((line) => line.trim());
  return Object.fromEntries(lines.map((line) => {
    const colon = line.indexOf(':');
    return colon < 0 ? [line.trim(), ''] : [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  }));
}

function show(told) {
  result.replaceChildren(
    verdict(told),
    told.tried.length ? part('Rules that do not take it', tried(told.tried)) : '',
    told.matched ? part('The rule that takes it', matched(told.matched)) : '',
    told.sent ? part('The request that would be sent', sent(told.sent)) : '',
    part('Also', facts([
      ['Path that is matched', told.path], ['Host', told.host], ['WebSocket', told.upgrade ? 'yes' : 'no'],
      ['Authentication', told.authentication], ['Proxy', told.proxy && `${told.proxy.used}: ${told.proxy.why}`],
    ])),
  );
}

function verdict({ status, error, matched: rule, sent: request }) {
  if (status !== null) {
    return h('p', { class: 'banner bad', tabindex: '-1' }, h('strong', {}, `proxyd itself answers ${status}`), `: ${error}`);
  }
  return h('p', { class: 'banner good', tabindex: '-1' }, h('strong', {}, rule.name), ' sends it to ', h('code', {}, request.url));
}

const part = (title, ...children) => h('section', { class: 'card' }, h('h3', {}, title), children);

function tried(rules) {
  return h('ol', { class: 'tried' }, rules.map(({ name, why }) => h('li', {}, h('strong', {}, name), ': ', why)));
}

function matched({ rule, name, groups, named }) {
  const numbers = groups.map((text, index) => [index ? `$${index}` : '$&', text]);
  const names = Object.entries(named).map(([key, text]) => [`$<${key}>`, text]);
  return [h('p', {}, h('strong', {}, name), ' ', h('code', { class: 'quiet' }, rule)),
    facts([...numbers, ...names].map(([key, text]) => [key, text ?? 'did not take part']), true)];
}

function sent({ method, url, fields, added, removed }) {
  const own = new Set(added.map(String));
  const lines = fields.map((field) => [own.has(String(field)) ? 'added' : '', field]);
  const all = [...lines, ...removed.map((field) => ['removed', field])];
  return [h('p', {}, h('code', {}, `${method} ${url}`)),
    h('ul', { class: 'lines' }, all.map(([how, [name, value]]) => h('li', { class: how },
      h('code', {}, how === 'removed' ? h('del', {}, `${name}: ${value}`) : `${name}: ${value}`),
      how && h('span', { class: `badge ${how}` }, how))))];
}

function facts(pairs, code = false) {
  const known = pairs.filter(([, text]) => text !== null && text !== undefined);
  return h('dl', { class: 'facts' }, known.map(([name, text]) => h('div', {},
    h('dt', {}, code ? h('code', {}, name) : name), h('dd', {}, code ? h('code', {}, text) : text))));
}
