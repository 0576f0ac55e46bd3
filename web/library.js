// The sidebar tab with the presets of this installation.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { buttons, element, isFound, makeCard } from "./library_cards.js";
import { insertPreset, readGraph } from "./library_graph.js";
import { PAGE_HEADER } from "./page_header.js";
import { addStyles } from "./style.js";
import { text } from "./texts.js";

const SUFFIX = ".safetensors";
const MOST_FILE = 2 * 1024 ** 2;

/** What is shown. `matches` is the server's answer for this graph, `renaming` a preset and what was typed so far. */
const state = { presets: [], matches: {}, words: "", fitting: false, renaming: null };
let root, list, notice, asked = 0, waiting = null;
let silent = false; // the server did not answer, and that is what the notice says

/** To be called once. */
export function addLibrary() {
  addStyles("library.css");
  build();
  app.extensionManager.registerSidebarTab({
    id: "qsched",
    icon: "pi pi-sliders-h",
    title: "Q-Sched",
    tooltip: text("tab"),
    type: "custom",
    // The host calls this again whenever it draws the bar.
    render(container) {
      if (root.parentElement === container) return;
      container.replaceChildren(root);
      loadPresets();
    },
  });
  for (const event of ["graphChanged", "graphCleared"]) api.addEventListener(event, () => later(loadMatches));
  for (const event of ["execution_success", "reconnected"]) api.addEventListener(event, () => later(loadPresets));
}

/** After a workflow was loaded. */
export function refreshLibrary() {
  later(loadMatches);
}

function later(work) {
  if (!root?.isConnected) return; // the tab asks when it opens
  if (waiting?.work === loadPresets) work = loadPresets;
  clearTimeout(waiting?.timer);
  const timer = setTimeout(() => {
    waiting = null;
    work();
  }, 400);
  waiting = { work, timer };
}

function build() {
  root = element("section", "qsched-library");
  const search = element("input");
  search.type = "search";
  search.placeholder = text("search");
  search.setAttribute("aria-label", text("search"));
  search.addEventListener("input", () => {
    state.words = search.value;
    draw();
  });
  const check = element("input");
  check.type = "checkbox";
  check.addEventListener("change", () => {
    state.fitting = check.checked;
    draw();
  });
  const label = element("label");
  label.append(check, element("span", "", text("only fitting")));
  const chooser = element("input");
  chooser.type = "file";
  chooser.accept = SUFFIX;
  chooser.multiple = true;
  chooser.hidden = true;
  chooser.addEventListener("change", () => importFiles([...chooser.files]).finally(() => (chooser.value = "")));
  const bar = element("div", "qsched-bar");
  bar.append(label, buttons([["import", () => chooser.click()], ["refresh", loadPresets]]));
  notice = element("p", "qsched-notice");
  list = element("div", "qsched-cards");
  root.append(search, bar, chooser, notice, list, element("p", "qsched-file", text("drop here")));
  for (const event of ["dragover", "drop"]) root.addEventListener(event, takeDrop);
}

// The host would open the file's workflow: on the tab it is a preset.
function takeDrop(event) {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.type === "drop") importFiles([...event.dataTransfer.files]);
}

async function importFiles(files) {
  const done = [], failed = [];
  for (const file of files) {
    try {
      if (!file.name.toLowerCase().endsWith(SUFFIX) || file.size > MOST_FILE) throw new Error(text("no preset"));
      const form = new FormData();
      form.append("file", file, file.name);
      done.push((await ask("/import", { method: "POST", headers: PAGE_HEADER, body: form })).name);
    } catch (error) {
      failed.push(`${file.name}: ${error.message}`);
    }
  }
  say([...done.map((name) => text("imported", { name })), ...failed].join("\n"), failed.length > 0);
  if (done.length) await filesChanged();
}

async function renamePreset(preset, name) {
  try {
    const { name: made } = await post("/rename", { name: preset.name, new_name: name });
    state.renaming = null;
    say(text("renamed", { name: made }));
    await filesChanged();
  } catch (error) {
    say(error.message, true);
  }
}

async function sharePreset(preset) {
  try {
    const answer = await fetchPresets(`/picture?name=${encodeURIComponent(preset.name)}`);
    const link = element("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${preset.name.split(/[\\/]/).at(-1).slice(0, -SUFFIX.length)}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function insert(preset) {
  const target = insertPreset(preset.name);
  say(target === null ? text("inserted") : text("connected", { name: target.slice(0, 80) }));
}

// Nodes list the files that there are; the host reads that list again.
async function filesChanged() {
  await Promise.all([loadPresets(), app.reloadNodeDefs?.().catch(() => {})]);
}

async function loadPresets() {
  try {
    const { presets } = await ask("");
    state.presets = presets;
    if (silent) say("");
    silent = false;
    draw();
    await loadMatches();
  } catch (error) {
    silent = true;
    say(error.message, true);
  }
}

async function loadMatches() {
  const turn = ++asked;
  try {
    const { presets } = await post("/match", readGraph());
    if (turn !== asked) return; // a later graph is on its way
    state.matches = presets;
    draw();
  } catch (error) {
    if (turn !== asked) return;
    silent = true;
    say(error.message, true);
  }
}

function draw() {
  if (state.renaming?.isConnected) return; // somebody is typing
  const shown = state.presets.filter((preset) => {
    const fits = !state.fitting || (!preset.error && state.matches[preset.name]?.fits !== false);
    return fits && isFound(preset, state.words.trim());
  });
  shown.sort((one, other) => rank(one) - rank(other)); // what fits first, names as the server sorts them
  const actions = { insert, rename: startRenaming, share: sharePreset };
  list.replaceChildren(...shown.map((preset) => makeCard(preset, state.matches[preset.name] ?? null, actions)));
  if (!shown.length) list.append(element("p", "qsched-file", text(state.presets.length ? "none found" : "none there")));
}

function rank(preset) {
  if (preset.error) return 3;
  return { true: 0, false: 2 }[state.matches[preset.name]?.fits] ?? 1;
}

function startRenaming(preset) {
  const card = [...list.children].find((one) => one.dataset.name === preset.name);
  if (!card) return;
  const form = element("form", "qsched-rename");
  const name = element("input");
  name.value = preset.name.split(/[\\/]/).at(-1).slice(0, -SUFFIX.length);
  name.maxLength = 120;
  name.setAttribute("aria-label", text("new name"));
  const stop = () => {
    state.renaming = null;
    form.remove();
    draw();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    renamePreset(preset, name.value);
  });
  form.addEventListener("keydown", (event) => {
    event.stopPropagation(); // no shortcuts of the host
    if (event.key === "Escape") stop();
  });
  form.append(name, buttons([["ok", () => form.requestSubmit()], ["cancel", stop]]));
  card.querySelector(".qsched-buttons").replaceWith(form);
  state.renaming = form;
  name.select();
}

function say(words, bad = false) {
  notice.textContent = words.slice(0, 2000);
  notice.className = bad ? "qsched-notice qsched-bad" : "qsched-notice";
  notice.setAttribute("role", bad ? "alert" : "status");
}

const post = (path, told) =>
  ask(path, {
    method: "POST", headers: { ...PAGE_HEADER, "Content-Type": "application/json" }, body: JSON.stringify(told),
  });

async function ask(path, options) {
  return (await fetchPresets(path, options)).json();
}

// Rejects with a text for a person.
async function fetchPresets(path, options) {
  let answer;
  try {
    answer = await api.fetchApi(`/qsched/presets${path}`, options);
  } catch {
    throw new Error(text("no server"));
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new Error(typeof error === "string" ? error : `${text("no server")} (${answer.status})`);
}
