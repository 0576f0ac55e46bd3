// The live map on JAQ Calibrate.
import { api } from "../../../scripts/api.js";
import { showLivePair } from "./slider.js";
import { bestSoFar, gainsOf, isIdentity, signed } from "./gains.js";
import { askHistory, followOutput, readHistory } from "../shared/history.js";
import { drawMap, mapHeight } from "./search_map.js";
import { allNodes, nodeById, rootGraph } from "../shared/nodes.js";
import { Plot } from "../shared/panel.js";
import { advance, readReport, readStudy } from "../shared/records.js";
import { setStale } from "../reports/report.js";
import { hasEnded, watchRuns } from "../shared/runs.js";
import { text } from "../shared/texts.js";
import { drawLegend, drawTrace } from "./trace.js";

const NODE = "QSchedCalibrate";
const HEIGHT = 250, LINE = 52, LEGEND = 22;

/** Per node: its panel, what is known of its search, and the run it belongs to, null where none is running. */
const states = new WeakMap();

/** To be called for every node that is made. */
export function addMap(node) {
  if (node.comfyClass !== NODE) return;
  states.set(node, { panel: new Plot(node, "qsched_map"), study: null, prompt: null });
  show(node);
  followOutput(node, (output) => showReport(node, output));
}

/** To be called once: listens for the events of calibrations, and for their end. */
export function listen() {
  const running = () => calibrations().filter(([, node]) => states.get(node).prompt !== null);
  const end = (prompt) => {
    for (const [, node] of running()) if (states.get(node).prompt === prompt) setRunning(node, null);
  };
  watchRuns(() => running().length > 0, end, askHistory);
  readHistory(({ nodes: entries }) => {
    for (const [id, node] of calibrations()) update(node, entries.find((entry) => entry.node === id));
  });
  api.addEventListener("qsched.progress", ({ detail }) => {
    if (detail?.workflow && detail.workflow !== rootGraph()?.id) return; // another tab's: the server keeps it
    const node = nodeById(String(detail?.node));
    const state = node && states.get(node);
    if (!state) return;
    const next = advance(state.study, detail);
    if (next === null) return askHistory();
    state.study = next;
    showLivePair(node, detail.pictures);
    setRunning(node, hasEnded(detail.prompt) ? null : detail.prompt);
  });
}

const calibrations = () => [...allNodes()].filter(([, node]) => states.has(node));

function update(node, entry) {
  const state = states.get(node);
  const prompt = entry && !hasEnded(entry.prompt) ? entry.prompt : null;
  const missed = state.prompt !== null && prompt === null; // its end, and maybe the last trials
  if (entry && (prompt !== null || missed || !state.study)) showHistory(node, entry, prompt);
  else if (missed) setRunning(node, null);
}

function showHistory(node, { studies }, prompt) {
  const state = states.get(node);
  const study = studies.at(-1);
  state.study = newer(state.study, study);
  if (prompt !== null) showLivePair(node, study?.pictures);
  setRunning(node, prompt);
}

// Events that came while the server answered are ahead of its answer.
function newer(known, entry) {
  const study = entry ? readStudy(entry) : null;
  return known && known.run === study?.run && known.count > study.count ? known : study;
}

function setRunning(node, prompt) {
  states.get(node).prompt = prompt;
  setStale(node, prompt !== null);
  show(node);
}

function showReport(node, output) {
  const study = readReport(output.qsched_report?.[0]);
  const state = states.get(node);
  state.study = study && { ...study, run: state.study?.run ?? "" };
  state.prompt = null;
  show(node);
}

function show(node) {
  const { panel, study, prompt } = states.get(node);
  panel.canvas.dataset.points = study?.points.length ?? 0;
  panel.canvas.dataset.running = prompt === null ? "no" : "yes";
  if (!study?.points.length) return panel.show(text(firstWords(study)), 0);
  panel.show(words(study, prompt !== null), HEIGHT, (context, width, height, theme) => {
    const map = Math.min(height - LINE - LEGEND - 4, mapHeight(study, width));
    drawMap(context, { x: 0, y: 0, width, height: map }, theme, study);
    drawLegend(context, { x: 0, y: map, width, height: LEGEND }, theme, study);
    drawTrace(context, { x: 0, y: map + LEGEND, width, height: height - map - LEGEND }, theme, study);
  });
}

function firstWords(study) {
  if (!study) return "map.hint";
  return study.phase === "reference" ? "map.reference" : "map.first";
}

function words(study, running) {
  const best = bestSoFar(study, gainsOf(study)).at(-1);
  const count = study.count - isIdentity(study.points[0]);
  const trials = text(count === 1 ? "map.one" : "map.many", { count });
  const found = best > 0 ? text("map.gain", { gain: signed(best) }) : text("map.none");
  const parts = [found, trials];
  if (running && study.phase !== "search") parts.push(text("map.verdict"));
  return parts.join(" · ");
}
