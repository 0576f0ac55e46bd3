// The sidebar tab with the presets of this installation.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { buttons, element, makeCard } from "./cards.js";
import { importFile, pictureOf, post } from "./client.js";
import { addCanvasDrop } from "./drop.js";
import { mayBePreset } from "./files.js";
import { insertPreset, loaders, readGraph, renameInGraph, sortLoaders, usesInGraph } from "./graph.js";
import { whenTranslated } from "../shared/sentences.js";
import { addStyles } from "../shared/style.js";
import { text } from "../shared/texts.js";

const SUFFIX = ".safetensors", TYPES = ".safetensors,.png";
const PAGE = 60, MOST_PAGE = 500; // presets that are asked for at a time, and that the server gives at most
const TYPING = 250, CHANGING = 400; // milliseconds of quiet after a letter, and after a change of the graph

/** `presets` is what is shown of the server's list, `total` how many are like that, `all` how many there are. */
const state = { presets: [], total: 0, all: 0, words: "", fitting: false, renaming: null };
let root, list, notice, foot, end, asked = 0, loading = false, timer = null;
let silent = false; // the server did not answer, and that is what the notice says

/** To be called once. */
export function addLibrary() {
  addStyles("library/library.css");
  build();
  addCanvasDrop(filesChanged);
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
  for (const event of ["graphChanged", "graphCleared", "execution_success", "reconnected"]) {
    api.addEventListener(event, () => refreshLibrary());
  }
}

/** After the graph or the files may have changed. */
export function refreshLibrary(pause = CHANGING) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (root?.isConnected) loadPresets(); // else the tab asks when it opens
    orderLoaders();
  }, pause);
}

// What fits comes first in the list of Load Q-Sched Preset too.
async function orderLoaders() {
  if (loaders().next().done) return;
  try {
    sortLoaders((await post("/names", readGraph())).names);
  } catch {
    // Then they stand as the host lists them.
  }
}

function build() {
  root = element("section", "qsched-library");
  const search = element("input");
  search.type = "search";
  search.placeholder = text("search");
  search.setAttribute("aria-label", text("search"));
  search.addEventListener("input", () => {
    state.words = search.value;
    refreshLibrary(TYPING);
  });
  const check = element("input");
  check.type = "checkbox";
  check.addEventListener("change", () => {
    state.fitting = check.checked;
    loadPresets();
  });
  const label = element("label");
  label.append(check, element("span", "", text("only fitting")));
  const chooser = element("input");
  chooser.type = "file";
  chooser.accept = TYPES;
  chooser.multiple = true;
  chooser.hidden = true;
  chooser.addEventListener("change", () => importFiles([...chooser.files]).finally(() => (chooser.value = "")));
  const bar = element("div", "qsched-bar");
  bar.append(label, buttons([["import", () => chooser.click()], ["refresh", () => loadPresets()]]));
  notice = element("div", "qsched-notice");
  list = element("div", "qsched-cards");
  foot = element("p", "qsched-file");
  root.append(search, bar, chooser, notice, list, foot, element("p", "qsched-file", text("drop here")));
  for (const event of ["dragover", "drop"]) root.addEventListener(event, takeDrop);
  // Ahead of the end, so that it is there before it is seen. The host's container scrolls, not what is in it: of an
  // element that does not scroll, its end is always in sight. Browsers that know no scrollMargin ask at the end itself.
  const ahead = { rootMargin: "600px", scrollMargin: "600px" };
  end = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && loadMore(), ahead);
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
      if (!mayBePreset(file)) throw new Error(text("no preset"));
      const { name, added } = await importFile(file);
      done.push(text(added ? "imported" : "there already", { name }));
    } catch (error) {
      failed.push(`${file.name}: ${error.message}`);
    }
  }
  say([...done, ...failed].join("\n"), failed.length > 0);
  if (done.length) await filesChanged();
}

async function renamePreset(preset, newName) {
  try {
    const { name } = await post("/rename", { name: preset.name, new_name: newName });
    state.renaming = null;
    await filesChanged();
    const count = renameInGraph(preset.name, name);
    say([text("renamed", { name }), count ? text("renamed in graph", { count }) : ""].filter(Boolean).join("\n"));
  } catch (error) {
    say(error.message, true);
  }
}

async function deletePreset(preset) {
  try {
    const { undo } = await post("/delete", { name: preset.name });
    const count = usesInGraph(preset.name);
    await filesChanged();
    say([text("deleted", { name: preset.name }), count ? text("deleted in graph", { count }) : ""].filter(Boolean).join("\n"));
    notice.append(buttons([["undo", () => undoDelete(undo)]]));
  } catch (error) {
    say(error.message, true);
  }
}

async function undoDelete(undo) {
  try {
    const { name } = await post("/undo", { undo });
    await filesChanged();
    say(text("restored", { name }));
  } catch (error) {
    say(error.message, true);
  }
}

async function sharePreset(preset) {
  try {
    const link = element("a");
    link.href = URL.createObjectURL(await pictureOf(preset.name));
    // The canvas knows by this name that the picture is a preset.
    link.download = `${preset.name.split(/[\\/]/).at(-1).slice(0, -SUFFIX.length)}.qsched.png`;
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
  await app.reloadNodeDefs?.().catch(() => {});
  await Promise.all([root.isConnected ? loadPresets() : null, orderLoaders()]);
}

// As many as there were, so that the list does not jump.
async function loadPresets() {
  await load(0, Math.min(MOST_PAGE, Math.max(PAGE, state.presets.length)));
}

async function loadMore() {
  if (!loading && root.isConnected && state.presets.length < state.total) await load(state.presets.length, PAGE);
}

async function load(offset, limit) {
  const turn = ++asked;
  loading = true;
  try {
    const { words, fitting } = state;
    const answer = await post("", { ...readGraph(), words, fitting, offset, limit });
    if (answer.presets.some(({ error }) => error)) await whenTranslated();
    if (turn !== asked) return; // a later question is on its way
    const earlier = state.presets.slice(0, offset), names = new Set(earlier.map(({ name }) => name));
    const added = answer.presets.filter(({ name }) => !names.has(name));
    Object.assign(state, { presets: [...earlier, ...added], total: answer.total, all: answer.all });
    if (silent) say("");
    silent = false;
    draw(offset ? added : null);
  } catch (error) {
    if (turn !== asked) return;
    silent = true;
    say(error.message, true);
  } finally {
    if (turn === asked) loading = false;
  }
}

// All cards anew, or only those that came.
function draw(added = null) {
  if (state.renaming?.isConnected && !added) return; // somebody is typing
  const actions = { insert, rename: startRenaming, share: sharePreset, delete: deletePreset };
  const cards = (added ?? state.presets).map((preset) => makeCard(preset, actions));
  if (added) list.append(...cards);
  else list.replaceChildren(...cards);
  if (!state.presets.length) list.append(element("p", "qsched-file", text(state.all ? "none found" : "none there")));
  const { presets, total } = state;
  foot.textContent = presets.length < total ? text("more", { count: presets.length, total }) : "";
  end.unobserve(foot);
  end.observe(foot); // asks again whether the end is in sight
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
