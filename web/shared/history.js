// What the server keeps of the nodes of the workflow on the page, asked for once for all panels.
import { api } from "../../../scripts/api.js";
import { allNodes, lastOutput, rootGraph } from "./nodes.js";

const OURS = /^QSched/;

const followers = new WeakMap(); // by node: what to call with its output
const outputs = new WeakMap(); // by node: what it showed last
const executed = new WeakMap(); // by node: the question that was under way when it ran last
const readers = [];
let turn = 0; // of the questions to the server: a late answer says what is no longer so

/** To be called for every node that shows something of its output, as it is made. */
export function followOutput(node, show) {
  if (followers.has(node)) {
    followers.get(node).push(show);
    return;
  }
  followers.set(node, [show]);
  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    executed.set(this, turn);
    if (output) showOutput(this, output);
  };
}

/** @param {(answer: object, nodes: [string, object, object][]) => void} reader called with every answer */
export const readHistory = (reader) => readers.push(reader);

/** After a workflow was loaded, a tab came back or a page was reloaded: what the page knows, then the server. */
export function restoreHistory() {
  for (const [id, node, graph] of ourNodes()) {
    const output = lastOutput(id, node, graph);
    if (output) showOutput(node, output);
  }
  return askHistory();
}

/** Asks the server, and hands its answer to all panels. */
export async function askHistory() {
  const nodes = ourNodes();
  if (!nodes.length) return;
  const workflow = rootGraph()?.id, question = ++turn;
  let answer;
  try {
    const response = await api.fetchApi(`/qsched/history?workflow=${encodeURIComponent(workflow ?? "")}`);
    if (!response.ok) return;
    answer = await response.json();
  } catch {
    return; // the server is away: the page asks again when it is back
  }
  if (workflow !== rootGraph()?.id || question !== turn) return;
  for (const { node: id, kind, output } of answer.reports) {
    const node = nodes.find(([found]) => found === id)?.[1];
    if (node?.comfyClass !== kind || executed.get(node) >= question) continue; // it ran while the server answered
    const shown = outputs.get(node) ?? null;
    if (JSON.stringify(output) !== JSON.stringify(shown)) showOutput(node, output);
  }
  for (const reader of readers) reader(answer, nodes);
}

/** @param {?object} output null: a run began, and did not come to its end */
function showOutput(node, output) {
  outputs.set(node, output);
  for (const show of followers.get(node) ?? []) show(output ?? {});
}

const ourNodes = () => [...allNodes()].filter(([, node]) => OURS.test(node.comfyClass ?? ""));
