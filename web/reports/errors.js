// What went wrong, on the node that it went wrong in, until a run passes that node.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { readHistory } from "../shared/history.js";
import { allNodes, rootGraph } from "../shared/nodes.js";
import { Note } from "./note.js";
import { setFailed } from "./report.js";
import { onCatalogue, translatedError } from "../shared/sentences.js";

const LONGEST = 4000, MOST = 100;

const errors = new Map(); // by workflow and node: {workflow, id, text, refused}
const notes = new WeakMap(); // by node
let run = Promise.resolve(null); // the workflow that runs; only known while there are errors
let last = Promise.resolve();
let seen = null;

/** To be called once: listens for failures, and for runs that get past them. */
export function listenErrors() {
  api.addEventListener("execution_start", ({ detail }) => {
    if (errors.size) run = workflowOf(detail?.prompt_id);
  });
  api.addEventListener("executing", ({ detail }) => passed([detail]));
  api.addEventListener("execution_cached", ({ detail }) => passed(detail?.nodes ?? []));
  api.addEventListener("execution_error", ({ detail }) => inTurn(() => failed(detail)));
  readHistory(agree);
  onCatalogue(restoreErrors);
  api.addEventListener("promptQueued", () => refuse(app.lastNodeErrors));
  // The host has no event for a prompt that its server refuses.
  setInterval(() => {
    if (app.lastNodeErrors === seen) return;
    refuse(app.lastNodeErrors);
  }, 400);
}

/** After a workflow was loaded or its tab came back. */
export function restoreErrors() {
  const workflow = rootGraph()?.id;
  for (const [id, node] of allNodes()) show(node, errors.get(key(workflow, id))?.text);
}

// After a reload the page knows nothing of a failure, and a page may miss that a run got past one: the server knows.
function agree({ error, running }) {
  // A run that goes on may be past the node by now: its events say so, and the server is asked at its end.
  if (running || !error) return;
  const workflow = rootGraph()?.id, id = error.node_id === undefined ? null : String(error.node_id);
  for (const one of [...errors.values()]) if (one.workflow === workflow && !one.refused && one.id !== id) forget(one);
  if (id !== null && !errors.has(key(workflow, id))) keep(workflow, id, wordsOf(error), false);
}

async function failed(detail) {
  if (!isOurs(detail?.node_type)) return;
  keep(await workflowOf(detail.prompt_id), String(detail.node_id), wordsOf(detail), false);
}

// The kind of a stranger's error without the module that it is from: a path on the server, for what a pack raises.
function wordsOf({ exception_message, exception_type }) {
  const message = String(exception_message ?? "").trim().replace(/^Execution Blocked: (?=Q-Sched:)/, "");
  const kind = String(exception_type ?? "").split(".").at(-1);
  return (message.startsWith("Q-Sched:") ? message : `${kind}: ${message}`).slice(0, LONGEST);
}

function passed(ids) {
  if (errors.size) inTurn(async () => {
    const workflow = await run;
    for (const id of ids) forget(errors.get(key(workflow, String(id))));
  });
}

// Answers of the server come when they like; events count in the order in which they were sent.
function inTurn(job) {
  last = last.then(job).catch((error) => console.warn("Q-Sched: an error could not be shown.", error));
}

function refuse(found) {
  seen = found;
  const workflow = rootGraph()?.id;
  for (const error of [...errors.values()]) if (error.refused && error.workflow === workflow) forget(error);
  for (const [id, { errors: list, class_type: type } = {}] of Object.entries(found ?? {})) {
    if (!isOurs(type) || !list?.length) continue;
    const details = String(list[0].details ?? ""), start = details.indexOf("Q-Sched:");
    keep(workflow, id, (start < 0 ? `${list[0].message}: ${details}` : details.slice(start)).slice(0, LONGEST), true);
  }
}

const isOurs = (type) => String(type).startsWith("QSched");
const key = (workflow, id) => `${workflow}\n${id}`;

function keep(workflow, id, text, refused) {
  errors.set(key(workflow, id), { workflow, id, text, refused });
  if (errors.size > MOST) errors.delete(errors.keys().next().value);
  if (workflow === rootGraph()?.id) showAt(id, text);
}

function forget(error) {
  if (!error) return;
  errors.delete(key(error.workflow, error.id));
  if (error.workflow === rootGraph()?.id) showAt(error.id, "");
}

function showAt(id, text) {
  for (const [found, node] of allNodes()) if (found === id) show(node, text);
}

function show(node, text) {
  let note = notes.get(node);
  if (!isOurs(node.comfyClass) || (!text && !note)) return;
  if (!note) {
    note = new Note(node, "qsched_error");
    note.headline.setAttribute("role", "alert");
    notes.set(node, note);
  }
  const [headline, ...rest] = translatedError(text ?? "").split("\n");
  note.say(headline, rest.join("\n"), "error");
  setFailed(node, Boolean(text));
}

/** The page's id of the workflow that a prompt was made from. */
async function workflowOf(prompt) {
  const queue = await answer("/queue");
  const running = queue?.queue_running?.find((item) => item[1] === prompt);
  const item = running ?? (await answer(`/history/${encodeURIComponent(prompt)}`))?.[prompt]?.prompt;
  return item?.[3]?.extra_pnginfo?.workflow?.id ?? rootGraph()?.id;
}

async function answer(path) {
  const response = await api.fetchApi(path);
  return response.ok ? response.json() : null;
}
