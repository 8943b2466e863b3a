// Receives the state once a second, hands it to the sections, and says how old it is.

import { byId, count, setText } from "/dom.js";
import * as charts from "/charts.js";
import * as sections from "/sections.js";
import * as sessions from "/sessions.js";

/** Age from which the figures are greyed, ms. */
const OLD = 2000;
/** Time between two attempts to connect, ms. */
const RETRY = 2000;

let source = null;
/** Time of arrival of the last state, ms since the page began. */
let arrived = null;
let isStale = false;
let announced = "";
let chosen = null;
/** Whether a person chose the session of the charts. Until then a session that trips is drawn. */
let isPicked = false;
let lastVerdict = null;

/** The rates of the last second by session. */
class Rates {
  constructor(rates) {
    this.end = rates?.end ? Date.parse(rates.end) / 1000 : null;
    this.bySession = new Map((rates?.sessions ?? []).map((session) => [session.name, session]));
    this.known = this.end !== null;
  }

  /** The last value of a session; null if there is none. */
  of(name, column) {
    return this.bySession.get(name)?.[column].at(-1) ?? null;
  }

  sum(column) {
    return [...this.bySession.keys()].reduce((all, name) => all + (this.of(name, column) ?? 0), 0);
  }

  last(name) {
    if (!this.known || !this.bySession.has(name)) return null;
    return {
      end: this.end, order: this.of(name, "order"), withheld: this.of(name, "withheld"),
      permille: this.of(name, "limit_permille"),
    };
  }
}

function show(state) {
  const rates = new Rates(state.rates);
  const found = sections.problems(state);
  const verdict = sections.verdict(state, found);
  document.title = `${verdict.text} – ${state.host} – breaker`;
  setText(byId("host"), `${state.host} · ${state.status.policy.name || "policy without a name"}`);
  lastVerdict = verdict;
  sections.showVerdict(verdict);
  sections.showProblems(found, state.status.enforced.notes);
  sections.showFigures(state, rates);
  sections.showScopes(state);
  sessions.showSessions(state, rates);
  sections.showEvents(state.events);
  sections.showPairs(byId("failures"), state.status.failure_policy.map(({ failure, then }) => [failure, then]));
  sections.showAttestation(state);
  announce([verdict.text, ...found.slice(0, 3).map((problem) => `${problem.kind} ${problem.place}`)].join(". "));
  const drawn = isPicked ? chosen : (sessions.firstTripped() ?? chosen ?? sessions.nearest());
  if (drawn !== chosen) choose(drawn);
  charts.append(rates);
  // For the measurement of the first state that was drawn.
  if (performance.getEntriesByName("state").length === 0) performance.mark("state");
}

function showError(state) {
  const verdict = { level: "bad", text: "The load cannot be read" };
  document.title = `${verdict.text} – ${state.host} – breaker`;
  sections.showVerdict(verdict);
  const todo = "run `breaker status` on the host; the figures below are old";
  sections.showProblems([{ level: "bad", kind: "not read", place: state.host, found: state.error, todo }], []);
  announce(`${verdict.text}: ${state.error}`);
}

/** Tells screen readers of a change of what is wrong, and of nothing else. */
function announce(text) {
  if (text === announced) return;
  announced = text;
  setText(byId("announce"), text);
}

function choose(name) {
  chosen = name;
  sessions.mark(name);
  charts.choose(name);
}

function showAge() {
  const age = arrived === null ? null : performance.now() - arrived;
  const words = age === null ? "no data yet" : `data ${(age / 1000).toFixed(age < 10_000 ? 1 : 0)} s old`;
  setText(byId("age"), words);
  const waited = age ?? performance.now();
  if (waited > OLD) {
    const since = age === null ? "The agent has sent no state." : `The figures are ${count(Math.floor(age / 1000))} s old: the agent does not answer.`;
    byId("stale").hidden = false;
    setText(byId("stale"), `${since} The kernel program enforces without the agent. To see the state now, run breaker status on the host.`);
  }
  if (waited > OLD === isStale) return;
  isStale = waited > OLD;
  document.documentElement.classList.toggle("stale", isStale);
  if (isStale) {
    announce("The figures are old: the agent does not answer.");
    if (lastVerdict) sections.showVerdict({ level: "unknown", text: `Last known: ${lastVerdict.text}` });
  } else {
    byId("stale").hidden = true;
    charts.reload();
  }
}

function receive(event) {
  const state = JSON.parse(event.data);
  if (state.error) {
    showError(state);
    return;
  }
  arrived = performance.now();
  show(state);
  showAge();
}

function connect() {
  source = new EventSource("/live");
  source.addEventListener("message", receive);
  source.addEventListener("error", () => {
    // The browser reconnects by itself unless the agent refused.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
  });
}

sessions.start((name) => {
  isPicked = true;
  choose(name);
});
connect();
setInterval(showAge, 200);
