// The live map on JAQ Calibrate.
import { api } from "../../scripts/api.js";
import { bestSoFar, gainsOf, isIdentity, signed } from "./gains.js";
import { drawMap } from "./map.js";
import { allNodes, lastOutput, nodeById, rootGraph } from "./nodes.js";
import { Panel } from "./panel.js";
import { advance, readReport, readStudy } from "./records.js";
import { text } from "./texts.js";
import { drawLegend, drawTrace } from "./trace.js";

const NODE = "QSchedCalibrate", CONTROL = "full-precision control";
const HEIGHT = 296, LINE = 66, LEGEND = 26;

/** Per node: its panel, and what is known of its searches. */
const shown = new WeakMap();

/** To be called for every node that is made. */
export function addMap(node) {
  if (node.comfyClass !== NODE) return;
  shown.set(node, { panel: new Panel(node, "qsched_map"), study: null, control: null });
  show(node);
  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    showReport(this, output);
  };
}

/** To be called once: listens for what calibrations tell. */
export function listen() {
  api.addEventListener("qsched.progress", ({ detail }) => {
    if (detail?.workflow && detail.workflow !== rootGraph()?.id) return; // another tab's: the server keeps it
    const node = nodeById(String(detail?.node));
    const state = node && shown.get(node);
    if (!state) return;
    const slot = detail.study === CONTROL ? "control" : "study";
    const next = advance(state[slot], detail);
    if (next === null) return restore();
    if (slot === "study" && state.study?.run !== next.run) state.control = null;
    state[slot] = { ...next, running: true };
    show(node);
  });
}

/** After a workflow was loaded, a tab came back or a page was reloaded: from the last result, or the server. */
export async function restore() {
  const nodes = [...allNodes()].filter(([, node]) => shown.has(node));
  if (!nodes.length) return;
  for (const [id, node, graph] of nodes) showReport(node, lastOutput(id, node, graph));
  const workflow = rootGraph()?.id;
  try {
    const answer = await api.fetchApi(`/qsched/history?workflow=${encodeURIComponent(workflow ?? "")}`);
    if (!answer.ok || workflow !== rootGraph()?.id) return;
    for (const entry of (await answer.json()).nodes) {
      const node = nodes.find(([id]) => id === entry.node)?.[1];
      const state = node && shown.get(node);
      if (state && (entry.running || !state.study)) showHistory(node, state, entry);
    }
  } catch (error) {
    console.warn("Q-Sched: the history could not be read.", error);
  }
}

function showHistory(node, state, { studies, running }) {
  const [control, study] = [studies.find(isControl), studies.find((told) => !isControl(told))];
  state.study = study ? { ...readStudy(study), running } : null;
  state.control = control ? readStudy(control) : null;
  show(node);
}

const isControl = (told) => told.study === CONTROL;

function showReport(node, output) {
  const study = readReport(output?.qsched_report?.[0]);
  const state = shown.get(node);
  if (!study || !state) return;
  state.study = { ...study, run: state.study?.run ?? "" };
  show(node);
}

function show(node) {
  const { panel, study, control } = shown.get(node);
  panel.canvas.dataset.points = study?.points.length ?? 0;
  if (!study?.points.length) return panel.show(text(study ? "map.first" : "map.hint"), 0);
  panel.show(words(study, control), HEIGHT, (context, width, height, theme) => {
    const map = height - LINE - LEGEND - 4;
    drawMap(context, { x: 0, y: 0, width, height: map }, theme, study, radiusOf(node));
    drawLegend(context, { x: 0, y: map, width, height: LEGEND }, theme, study);
    drawTrace(context, { x: 0, y: map + LEGEND, width, height: LINE }, theme, study, control);
  });
}

function words(study, control) {
  const best = bestSoFar(study, gainsOf(study)).at(-1);
  const count = study.count - isIdentity(study.points[0]);
  const trials = text(count === 1 ? "map.one" : "map.many", { count });
  const found = best > 0 ? text("map.gain", { gain: signed(best) }) : text("map.none");
  const parts = [found, trials];
  if (study.running && study.phase === "verdict" && !control) parts.push(text("map.verdict"));
  if (control?.points.length) parts.push(text("map.control", { count: control.count }));
  return parts.join(" · ");
}

function radiusOf(node) {
  const value = Number(node.widgets?.find((widget) => widget.name === "radius")?.value);
  return value > 0 && value <= 0.5 ? value : 0.2;
}
