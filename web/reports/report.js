// What a node said, on the node, for as long as it is so: the host takes its own texts away when a run ends.
import { api } from "../../../scripts/api.js";
import { interval } from "../calibration/gains.js";
import { followOutput, readHistory } from "../shared/history.js";
import { allNodes, isOnPage, nodeById, rootGraph } from "../shared/nodes.js";
import { Note } from "./note.js";
import { readNote, readVerdict } from "../shared/records.js";
import { onCatalogue, translated } from "../shared/sentences.js";
import { text } from "../shared/texts.js";

const OURS = /^QSched/, HOSTS = "$$node-text-preview";
const TO_DO = /^TO DO {2}/m; // a line of the environment check
const LONGEST = 20_000; // letters: a stranger's file may hold any text

/** Per node: its panel, its output's text and verdict, what is said beside it, whether a new run replaces it, and
 * whether a run failed in it. */
const states = new WeakMap();

/** To be called for every node that is made. */
export function addReport(node) {
  if (!OURS.test(node.comfyClass ?? "")) return;
  states.set(node, { panel: null, words: "", verdict: null, note: null, stale: false, failed: false });
  // Above the map of a calibration, and in front of what comes later.
  if (node.comfyClass === "QSchedCalibrate") states.get(node).panel = new Note(node, "qsched_report");
  followOutput(node, (output) => {
    const state = states.get(node);
    const words = Array.isArray(output?.text) ? output.text[0] : null;
    state.words = typeof words === "string" ? words.slice(0, LONGEST) : "";
    state.verdict = readVerdict(output?.qsched_report?.[0]);
    state.stale = false;
    if (state.note?.kind === "stopped") state.note = null;
    show(node);
  });
}

/** To be called once. */
export function listenReports() {
  onCatalogue(() => {
    for (const [, node] of allNodes()) if (states.has(node)) show(node);
  });
  api.addEventListener("qsched.note", ({ detail }) => {
    if (detail?.workflow && detail.workflow !== rootGraph()?.id) return; // another tab's: the server keeps it
    const node = nodeById(String(detail?.node));
    if (node?.comfyClass === detail?.kind) setNote(node, detail.note);
  });
  readHistory(({ reports }, nodes) => {
    for (const [id, node] of nodes) {
      const entry = reports.find((report) => report.node === id && report.kind === node.comfyClass);
      if (entry) setNote(node, entry.note);
    }
  });
}

/** @param {boolean} stale a run that will replace the report is going on: it is not shown meanwhile */
export function setStale(node, stale) {
  const state = states.get(node);
  if (!state || state.stale === stale) return;
  state.stale = stale;
  show(node);
}

/** @param {boolean} failed an error is on the node: what an earlier run put out would look like this one's */
export function setFailed(node, failed) {
  const state = states.get(node);
  if (!state || state.failed === failed) return;
  state.failed = failed;
  show(node);
}

function setNote(node, note) {
  const state = states.get(node);
  const known = readNote(note);
  if (!state || JSON.stringify(known) === JSON.stringify(state.note)) return;
  state.note = known;
  show(node);
}

function show(node) {
  const state = states.get(node);
  const { headline, rest, kind } = state.stale ? { headline: "" } : contentOf(state);
  if ((!headline && !state.panel) || !isOnPage(node)) return;
  removeHostsText(node);
  state.panel ??= new Note(node, "qsched_report");
  state.panel.say(headline, rest, kind);
}

// What is said beside the output stands first: it is what the user has to act on.
function contentOf(state) {
  const { note } = state, [english, verdict] = state.failed ? ["", null] : [state.words, state.verdict];
  if (note?.kind === "stopped") return { headline: text("stopped", note), rest: "", kind: "stopped" };
  const kind = verdict?.accepted ? "good" : TO_DO.test(english) ? "error" : "", words = translated(english);
  const said = verdict ? { headline: headlineOf(verdict), rest: words, kind } : { ...split(words), kind };
  if (note?.kind !== "differs") return said;
  const lines = note.differences.map((item) => `• ${text("difference", { ...item, what: partName(item.what) })}`);
  const rest = [...lines, said.headline, said.rest].filter(Boolean).join("\n");
  return { headline: text(`differs ${note.choice}`), rest, kind: "warning" };
}

// A part that a newer server names and this page does not know keeps its name.
function partName(what) {
  const name = text(`part ${what}`);
  return name.startsWith("part ") ? what : name;
}

function split(words) {
  const [headline, ...rest] = words.split("\n");
  return { headline, rest: rest.join("\n") };
}

/** "Accepted +0.11 [0.09, 0.13]", or what is recommended and why. */
function headlineOf({ accepted, retuned, why, gain, low, high }) {
  const range = gain === null ? "" : interval(gain, low, high);
  const answer = accepted ? (retuned ? "retuned" : "accepted") : why;
  return text(`verdict ${answer}`, { range });
}

// The host writes progress below a node that runs; older front ends leave it there.
function removeHostsText(node) {
  const widget = node.widgets?.find((one) => one.name === HOSTS);
  if (widget) node.removeWidget?.(widget);
}
