// When runs begin and end. A page misses events: it was reloaded, another tab sent the run, or the server went away. So
// the server is asked again at every event that may end a run, and every few seconds while one is believed to go on.
// A page that was just reloaded may get no events at all: the host forgets its socket when it notices that the old one
// is gone. So what the page itself queued counts as going on until the server says that its queue is empty.
import { api } from "../../../scripts/api.js";
import { readHistory } from "./history.js";

const ENDS = ["execution_success", "execution_error", "execution_interrupted"];
const CHANGES = ["status", "reconnected"]; // the host sends these to every tab
const MOST = 500; // ids of runs, the oldest go first
const SETTLE = 300, ASK_AGAIN = 10_000; // ms: several events become one question; for events that never came

const ended = new Set();

/** @param {?string} prompt the host's id of a run */
export const hasEnded = (prompt) => ended.has(prompt);

/**
 * To be called once.
 * @param {() => boolean} isRunning whether the page shows anything as running
 * @param {(prompt: string) => void} onEnd with the run that ended
 * @param {() => void} ask called when the server has to be asked
 */
export function watchRuns(isRunning, onEnd, ask) {
  let timer = null, queued = false;
  const askSoon = () => {
    timer ??= setTimeout(() => {
      timer = null;
      ask();
    }, SETTLE);
  };
  for (const name of ENDS) {
    api.addEventListener(name, ({ detail }) => {
      if (!detail?.prompt_id) return;
      ended.add(detail.prompt_id);
      if (ended.size > MOST) ended.delete(ended.values().next().value);
      onEnd(detail.prompt_id);
      askSoon();
    });
  }
  for (const name of CHANGES) api.addEventListener(name, askSoon);
  api.addEventListener("promptQueued", () => (queued = true));
  readHistory(({ queue }) => (queued &&= queue > 0));
  setInterval(() => (queued || isRunning()) && ask(), ASK_AGAIN);
}
