// What a node said, where the host does not show it any more: it writes it below a node that runs, and forgets it when
// the tab changes, or when a run finds the node's result in its cache.
import { allNodes, lastOutput } from "./nodes.js";
import { Note } from "./note.js";

const OURS = /^QSched/, HOSTS = "$$node-text-preview";
const LONGEST = 8000, MOST_LINES = 14;

const notes = new WeakMap(); // by node

/** To be called for every node that is made. */
export function addReport(node) {
  if (!OURS.test(node.comfyClass ?? "")) return;
  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    show(this, output);
  };
}

/** After a workflow was loaded or its tab came back. */
export function restoreReports() {
  for (const [id, node, graph] of allNodes()) {
    if (OURS.test(node.comfyClass ?? "")) show(node, lastOutput(id, node, graph));
  }
}

function show(node, output) {
  const said = Array.isArray(output?.text) ? output.text[0] : null;
  const shown = node.widgets?.some((widget) => widget.name === HOSTS);
  const words = typeof said === "string" && !shown ? said.slice(0, LONGEST) : "";
  if (!words && !notes.has(node)) return;
  if (!notes.has(node)) notes.set(node, new Note(node, "qsched_report", MOST_LINES));
  notes.get(node).say(words);
}
