// The live map on JAQ Calibrate.
import { api } from "../../scripts/api.js";
import { bestSoFar, gainsOf, isIdentity, signed } from "./gains.js";
import { drawMap } from "./map.js";
import { allNodes, lastOutput, nodeById, rootGraph } from "./nodes.js";
import { Panel } from "./panel.js";
import { advance, readReport, readStudy } from "./records.js";
import { hasEnded, watchRuns } from "./runs.js";
import { text } from "./texts.js";
import { drawLegend, drawTrace } from "./trace.js";

const NODE = "QSchedCalibrate", CONTROL = "full-precision control";
const HEIGHT = 296, LINE = 66, LEGEND = 26;

/** Per node: its panel, what is known of its searches, and the run they belong to, null where none is running. */
const states = new WeakMap();

let turn = 0; // of the questions to the server: a late answer says what is no longer so

/** To be called for every node that is made. */
export function addMap(node) {
  if (node.comfyClass !== NODE) return;
  states.set(node, { panel: new Panel(node, "qsched_map"), study: null, control: null, prompt: null });
  show(node);
  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    showReport(this, output);
  };
}

/** To be called once: listens for the events of calibrations, and for their end. */
export function listen() {
  watchRuns(() => calibrations().some(([, node]) => states.get(node).prompt !== null), (prompt) => {
    for (const [, node] of calibrations()) if (states.get(node).prompt === prompt) end(node);
    refresh();
  });
  api.addEventListener("qsched.progress", ({ detail }) => {
    if (detail?.workflow && detail.workflow !== rootGraph()?.id) return; // another tab's: the server keeps it
    const node = nodeById(String(detail?.node));
    const state = node && states.get(node);
    if (!state) return;
    const slot = detail.study === CONTROL ? "control" : "study";
    const next = advance(state[slot], detail);
    if (next === null) return restore();
    if (slot === "study" && state.study?.run !== next.run) state.control = null;
    state[slot] = next;
    state.prompt = hasEnded(detail.prompt) ? null : detail.prompt;
    show(node);
  });
}

const calibrations = () => [...allNodes()].filter(([, node]) => states.has(node));

/** After a workflow was loaded, a tab came back or a page was reloaded: from the last result, or the server. */
export function restore() {
  for (const [id, node, graph] of calibrations()) showReport(node, lastOutput(id, node, graph));
  return refresh();
}

async function refresh() {
  if (!calibrations().length) return;
  const workflow = rootGraph()?.id, asked = ++turn;
  try {
    const answer = await api.fetchApi(`/qsched/history?workflow=${encodeURIComponent(workflow ?? "")}`);
    if (!answer.ok) return;
    const entries = (await answer.json()).nodes;
    if (workflow !== rootGraph()?.id || asked !== turn) return;
    for (const [id, node] of calibrations()) update(node, entries.find((entry) => entry.node === id));
  } catch (error) {
    console.warn("Q-Sched: the history could not be read.", error);
  }
}

function update(node, entry) {
  const state = states.get(node);
  const prompt = entry && !hasEnded(entry.prompt) ? entry.prompt : null;
  const missed = state.prompt !== null && prompt === null; // its end, and maybe the last trials
  if (entry && (prompt !== null || missed || !state.study)) showHistory(node, entry, prompt);
  else if (missed) end(node);
}

function showHistory(node, { studies }, prompt) {
  const state = states.get(node);
  const [control, study] = [studies.find(isControl), studies.find((entry) => !isControl(entry))];
  state.study = newer(state.study, study);
  state.control = newer(state.control, control);
  state.prompt = prompt;
  show(node);
}

// Events that came while the server answered are ahead of its answer.
function newer(known, entry) {
  const study = entry ? readStudy(entry) : null;
  return known && known.run === study?.run && known.count > study.count ? known : study;
}

function end(node) {
  states.get(node).prompt = null;
  show(node);
}

const isControl = (entry) => entry.study === CONTROL;

function showReport(node, output) {
  const study = readReport(output?.qsched_report?.[0]);
  const state = states.get(node);
  if (!study || !state) return;
  state.study = { ...study, run: state.study?.run ?? "" };
  state.prompt = null;
  show(node);
}

function show(node) {
  const { panel, study, control, prompt } = states.get(node);
  panel.canvas.dataset.points = study?.points.length ?? 0;
  panel.canvas.dataset.running = prompt === null ? "no" : "yes";
  if (!study?.points.length) return panel.show(text(study ? "map.first" : "map.hint"), 0);
  panel.show(words(study, control, prompt !== null), HEIGHT, (context, width, height, theme) => {
    const map = height - LINE - LEGEND - 4;
    drawMap(context, { x: 0, y: 0, width, height: map }, theme, study, radiusOf(node));
    drawLegend(context, { x: 0, y: map, width, height: LEGEND }, theme, study);
    drawTrace(context, { x: 0, y: map + LEGEND, width, height: LINE }, theme, study, control);
  });
}

function words(study, control, running) {
  const best = bestSoFar(study, gainsOf(study)).at(-1);
  const count = study.count - isIdentity(study.points[0]);
  const trials = text(count === 1 ? "map.one" : "map.many", { count });
  const found = best > 0 ? text("map.gain", { gain: signed(best) }) : text("map.none");
  const parts = [found, trials];
  if (running && study.phase === "verdict" && !control) parts.push(text("map.verdict"));
  if (control?.points.length) parts.push(text("map.control", { count: control.count }));
  return parts.join(" · ");
}

function radiusOf(node) {
  const value = Number(node.widgets?.find((widget) => widget.name === "radius")?.value);
  return value > 0 && value <= 0.5 ? value : 0.2;
}
