// Which runs have ended. A page misses events: it was reloaded, another tab sent the run, or the server went away. So
// what a page believes to be running is asked for again, at every event that may end it and every few seconds.
import { api } from "../../scripts/api.js";

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
 * @param {(prompt: ?string) => void} onEnd with the run that ended, or null where the server has to be asked
 */
export function watchRuns(isRunning, onEnd) {
  for (const name of ENDS) {
    api.addEventListener(name, ({ detail }) => {
      if (!detail?.prompt_id) return;
      ended.add(detail.prompt_id);
      if (ended.size > MOST) ended.delete(ended.values().next().value);
      onEnd(detail.prompt_id);
    });
  }
  let timer = null;
  const ask = () => {
    timer ??= setTimeout(() => {
      timer = null;
      if (isRunning()) onEnd(null);
    }, SETTLE);
  };
  for (const name of CHANGES) api.addEventListener(name, ask);
  setInterval(() => isRunning() && onEnd(null), ASK_AGAIN);
}
