// Live numbers: what two readings of the status differ by, as values and as small curves.

import { find, h, setText, svg } from './dom.js';

const WINDOW_S = 10;
const POINTS = 60;
const WIDTH = 180;
const HEIGHT = 40;

const CHARTS = [
  { title: 'Requests per second', curves: [['', 'requests']], text: (value) => rate(value) },
  { title: 'Errors per second', curves: [['', 'errors']], text: (value) => rate(value), bad: true },
  { title: 'Latency', curves: [['p50', 'p50'], ['p90', 'p90'], ['p99', 'p99']], text: (value) => time(value) },
  { title: 'Open WebSockets', curves: [['', 'websockets']], text: (value) => String(value) },
  { title: 'Connections', curves: [['', 'connections']], text: (value) => String(value) },
];

let readings = [];
let points = [];

export function show(status) {
  const last = readings.at(-1);
  // After a restart everything counts from zero again.
  if (last && (last.started !== status.started || last.uptime > status.uptime)) pause();
  readings.push(status);
  while (readings.length > 2 && status.uptime - readings[1].uptime >= WINDOW_S) readings.shift();
  points.push({ ...since(readings[0], status), websockets: status.websockets, connections: status.connections });
  points = points.slice(-POINTS);
  for (const chart of CHARTS) draw(chart);
}

// Nothing is known of the time until the next reading.
export function pause() {
  readings = [];
  if (points.length && points.at(-1) !== null) points.push(null);
}

function since(first, status) {
  const seconds = status.uptime - first.uptime;
  if (seconds <= 0) return { requests: null, errors: null, p50: null, p90: null, p99: null };
  const counts = status.totals.latency.map(([bound, count], index) => [bound, count - first.totals.latency[index][1]]);
  return {
    requests: (status.totals.requests - first.totals.requests) / seconds,
    errors: (status.totals.errors - first.totals.errors) / seconds,
    p50: quantile(counts, 0.5),
    p90: quantile(counts, 0.9),
    p99: quantile(counts, 0.99),
  };
}

// Within a bucket, times are taken to be spread evenly; beyond the last bound nothing is known but that bound.
function quantile(counts, share) {
  const wanted = share * counts.reduce((sum, [, count]) => sum + count, 0);
  if (wanted === 0) return null;
  let below = 0;
  let lower = 0;
  for (const [bound, count] of counts) {
    if (count && below + count >= wanted) return bound === null ? lower : lower + (bound - lower) * (wanted - below) / count;
    below += count;
    lower = bound;
  }
  return lower;
}

function rate(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

function time(seconds) {
  if (seconds >= 1) return `${seconds.toPrecision(2)} s`;
  const ms = seconds * 1000;
  return `${ms >= 10 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

function draw(chart) {
  chart.figure ??= make(chart);
  const all = chart.curves.flatMap(([, name]) => points.map((point) => point?.[name] ?? 0));
  const highest = Math.max(...all);
  const said = [];
  chart.curves.forEach(([label, name], index) => {
    const values = points.map((point) => point?.[name] ?? null);
    const text = values.at(-1) === null ? '–' : chart.text(values.at(-1));
    setText(chart.values[index], text);
    said.push(`${label} ${text === '–' ? 'none' : text}`.trim());
    const path = line(values, highest || 1);
    chart.paths[index].setAttribute('d', path);
  });
  const top = highest ? `, highest ${chart.text(highest)}` : '';
  setText(chart.top, highest ? `max ${chart.text(highest)}` : '');
  chart.picture.setAttribute('aria-label', `${chart.title}: now ${said.join(', ')}${top}`);
}

function line(values, highest) {
  const step = WIDTH / (POINTS - 1);
  const start = POINTS - values.length;
  let pen = 'M';
  let path = '';
  values.forEach((value, index) => {
    if (value === null) {
      pen = 'M';
      return;
    }
    const x = ((start + index) * step).toFixed(1);
    const y = (HEIGHT - 2 - value / highest * (HEIGHT - 6)).toFixed(1);
    // A point that stands alone is seen as a short stroke.
    path += pen === 'M' && (values[index + 1] ?? null) === null ? `M${x} ${y}h-1` : `${pen}${x} ${y}`;
    pen = 'L';
  });
  return path;
}

function make(chart) {
  chart.values = chart.curves.map(() => h('dd', {}, '–'));
  chart.paths = chart.curves.map((_, index) => svg('path', { class: `curve curve-${index}` }));
  chart.picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
    svg('path', { class: 'axis', d: `M0 ${HEIGHT - 1}h${WIDTH}` }), chart.paths);
  chart.top = h('span', { class: 'max' });
  const values = chart.curves.map(([label], index) => h('div', { class: `value-${index}` },
    h('dt', { class: label ? '' : 'unseen' }, label || 'Now'), chart.values[index]));
  const figure = h('figure', { class: chart.bad ? 'chart bad' : 'chart' },
    h('figcaption', {}, chart.title, chart.top), h('dl', {}, values), chart.picture);
  find('#charts').append(figure);
  return figure;
}
