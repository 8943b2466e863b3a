// The charts of one session: the last 15 minutes from the agent's history, then one value a second.

import { byId, count, make, reconcile, setText } from "/dom.js";

const SECONDS = 900;
/** Shortest span of the axis of time, s: an agent that has just started has little history. */
const SHORTEST = 120;
/** Time after which a failed request is repeated, ms. */
const RETRY = 5000;

let session = null;
let plots = [];
/** Columns: time in s, passed, withheld, use in percent. */
let data = [[], [], [], []];
let hasLoaded = false;
let isWaiting = false;

const plotted = () => [[data[0], data[1], data[2]], [data[0], data[3]]];
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clock = (seconds, length = 5) => new Date(seconds * 1000).toISOString().slice(11, 11 + length);
const span = (_, low, high) => [Math.min(low, high - SHORTEST), high];

function options(element, series, range) {
  const axis = {
    stroke: color("--dim"), font: "12px system-ui, sans-serif", ticks: { show: false },
    grid: { stroke: color("--plot-grid"), width: 1 },
  };
  return {
    width: element.clientWidth, height: element.clientHeight, legend: { show: false },
    cursor: { show: false }, padding: [8, 6, 0, 0], series: [{}, ...series],
    scales: { x: { time: true, range: span }, y: { range } },
    axes: [
      { ...axis, size: 26, gap: 8, space: 84, values: times },
      { ...axis, size: 46, gap: 4, space: 34, values: (_, values) => values.map(count) },
    ],
  };
}

/** Texts of the axis of time: with seconds where the steps are shorter than a minute. */
function times(_, values, __, ___, step) {
  return values.map((value) => clock(value, step < 60 ? 8 : 5));
}

/** A line at 100 %, where the limit is. */
function limitLine(plot) {
  const y = plot.valToPos(100, "y", true);
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = color("--plot-withheld");
  ctx.lineWidth = 1;
  ctx.setLineDash([6, 4]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

/** Draws both charts anew: at the start, and for another colour scheme. */
function build() {
  plots.forEach((plot) => plot.destroy());
  const [rate, limit] = [byId("chart-rate"), byId("chart-limit")];
  const line = (name, dash) => ({ stroke: color(name), width: 1.5, dash, points: { show: false }, spanGaps: false });
  const fromZero = (_, __, high) => [0, Math.max(5, (high ?? 0) * 1.1)];
  const percent = (_, __, high) => [0, Math.max(110, (high ?? 0) * 1.05)];
  const marked = { ...options(limit, [line("--plot-limit")], percent), hooks: { draw: [limitLine] } };
  plots = [
    new uPlot(options(rate, [line("--plot-passed"), line("--plot-withheld", [5, 3])], fromZero), plotted()[0], rate),
    new uPlot(marked, plotted()[1], limit),
  ];
}

function draw() {
  if (plots.length === 0) build();
  else plotted().forEach((columns, index) => plots[index].setData(columns));
}

/** Chooses the session to draw. */
export function choose(name) {
  session = name;
  hasLoaded = false;
  setText(byId("chart-session"), name);
  load();
}

/** Reads the history again, for example after the agent was away. */
export function reload() {
  hasLoaded = false;
  if (session !== null) load();
}

async function load() {
  if (isWaiting) return;
  const wanted = session;
  try {
    const answer = await fetch(`/history?seconds=${SECONDS}&session=${encodeURIComponent(wanted)}`);
    if (!answer.ok) throw new Error(await answer.text());
    const { end, step_ms: step, sessions } = await answer.json();
    if (wanted !== session) return;
    fill(sessions[0], end ? Date.parse(end) / 1000 : 0, step / 1000);
    hasLoaded = true;
    setText(byId("chart-note"), sessions.length ? "" : "The agent has no history of this session yet.");
    draw();
    showTable();
  } catch {
    if (wanted !== session) return;
    setText(byId("chart-note"), "The history cannot be read from the agent. It is tried again.");
    isWaiting = true;
    setTimeout(() => {
      isWaiting = false;
      if (!hasLoaded) load();
    }, RETRY);
  }
}

/** Fills the columns with the history. */
function fill(found, end, step) {
  const length = found?.order.length ?? 0;
  data = [
    Array.from({ length }, (_, index) => end - (length - 1 - index) * step),
    found?.order ?? [], found?.withheld ?? [],
    (found?.limit_permille ?? []).map((value) => (value === null ? null : value / 10)),
  ];
}

/** Appends the last second of the session that is drawn. */
export function append(rates) {
  const last = rates.last(session);
  if (!hasLoaded || !last || last.end <= data[0].at(-1)) return;
  const values = [last.end, last.order, last.withheld, last.permille === null ? null : last.permille / 10];
  data.forEach((column, index) => {
    column.push(values[index]);
    while (column.length > SECONDS) column.shift();
  });
  draw();
  if (Math.round(last.end) % 10 === 0) showTable();
}

/** The figures of each minute, for readers without the picture. */
function showTable() {
  const minutes = new Map();
  data[0].forEach((time, index) => {
    const [passed, withheld, use] = [data[1][index], data[2][index], data[3][index]];
    if (passed === null && use === null) return;
    const row = minutes.get(clock(time)) ?? { minute: clock(time), passed: 0, withheld: 0, use: null };
    row.passed += passed ?? 0;
    row.withheld += withheld ?? 0;
    if (use !== null) row.use = Math.max(row.use ?? 0, use);
    minutes.set(row.minute, row);
  });
  reconcile(byId("chart-figures"), [...minutes.values()], (row) => row.minute, (first) => {
    const cells = [make("td"), make("td"), make("td")];
    const element = make("tr", {}, make("th", { scope: "row", text: first.minute }), ...cells);
    const update = (row) => {
      setText(cells[0], count(row.passed));
      setText(cells[1], count(row.withheld));
      setText(cells[2], row.use === null ? "no limit" : `${row.use.toFixed(1)} %`);
    };
    return { element, update };
  });
}

new ResizeObserver(() => {
  plots.forEach((plot) => {
    const { clientWidth: width, clientHeight: height } = plot.root.parentElement;
    if (width !== plot.width || height !== plot.height) plot.setSize({ width, height });
  });
}).observe(byId("chart-rate"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (plots.length) build();
});
