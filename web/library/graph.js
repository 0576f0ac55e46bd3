// The graph as the preset tab sees it: what is in it that a preset has to fit, and putting a loader node into it.
import { app } from "../../../scripts/app.js";
import { allNodes } from "../shared/nodes.js";

const FILES = { UNETLoader: "unet_name", CheckpointLoaderSimple: "ckpt_name", QSchedLoadQuantized: "model_name" };
const LOADER = "QSchedLoadPreset", QUANTIZER = "QSchedQuantizeModel";
const TAKERS = new Set(["QSchedSampler", "QSchedApply", "QSchedSamplerSelect"]);
const OFF = new Set([2, 4]); // muted, bypassed
const MOST = 200;

/**
 * What the server compares presets with. A value that comes in by a link is left out: it is not known here.
 * @returns {{models: object[], quantizers: object[], samplers: object[]}}
 */
export function readGraph() {
  const [models, quantizers, samplers] = [[], [], []];
  for (const [, node] of allNodes()) {
    if (node.subgraph || OFF.has(node.mode)) continue;
    const takes = (type) => node.inputs?.some((input) => input.type === type);
    const gives = (...types) => node.outputs?.some((output) => types.includes(output.type));
    if (gives("MODEL") && !takes("MODEL")) {
      models.push({ loader: String(node.comfyClass), file: text(node, FILES[node.comfyClass]) });
      const dtype = text(node, "weight_dtype");
      if (dtype && dtype !== "default") quantizers.push({ format: "" });
    }
    if (node.comfyClass === QUANTIZER) {
      const planned = node.inputs?.some((input) => input.name === "plan" && input.link != null);
      quantizers.push({
        format: planned ? "" : text(node, "format"),
        group_size: text(node, "group_size"),
        scales: text(node, "scales"),
        recipe: text(node, "recipe"),
      });
    }
    if (gives("SAMPLER", "SIGMAS", "GUIDER") || (takes("MODEL") && gives("LATENT"))) {
      samplers.push({
        steps: number(node, "steps"),
        cfg: number(node, "cfg"),
        sampler: text(node, "sampler_name"),
        scheduler: text(node, "scheduler"),
      });
    }
  }
  return { models: models.slice(0, MOST), quantizers: quantizers.slice(0, MOST), samplers: samplers.slice(0, MOST) };
}

/** Every Load Q-Sched Preset: [node, its widget]. */
export function* loaders() {
  for (const [, node] of allNodes()) {
    const widget = node.comfyClass === LOADER && node.widgets?.find((one) => one.name === "preset_name");
    if (widget) yield [node, widget];
  }
}

/** The loaders of a preset that has another name now take that one. @returns {number} how many there are */
export function renameInGraph(name, newName) {
  let count = 0;
  for (const [node, widget] of loaders()) {
    if (widget.value !== name) continue;
    offer(widget, [newName]);
    choose(node, widget, newName);
    count += 1;
  }
  return count;
}

/** How many loaders of a preset there are. */
export function usesInGraph(name) {
  return [...loaders()].filter(([, widget]) => widget.value === name).length;
}

/** The order in which loaders offer presets. @param {string[]} names */
export function sortLoaders(names) {
  const places = new Map(names.map((name, place) => [name, place]));
  const placeOf = (name) => places.get(name) ?? names.length;
  for (const [node, widget] of loaders()) {
    const { values } = widget.options ?? {};
    if (!Array.isArray(values)) continue;
    const sorted = [...values].sort((one, other) => placeOf(one) - placeOf(other));
    if (sorted.every((name, place) => name === values[place])) continue;
    widget.options.values = sorted;
    // Nodes 2.0 reads a widget's options anew when the list of widgets changes, and at no other time.
    node.widgets.push(widget);
    node.widgets.pop();
  }
}

function offer(widget, names) {
  const { values } = widget.options ?? {};
  if (Array.isArray(values)) widget.options.values = [...new Set([...values, ...names])];
}

function choose(node, widget, name) {
  widget.value = name;
  widget.callback?.(name);
  node.graph?.setDirtyCanvas?.(true, true);
}

/**
 * Adds Load Q-Sched Preset, and plugs it in where there is one place for it.
 * @param {string} name of the preset
 * @param {?number[]} place of its top left corner; the middle of what is seen without one
 * @returns {?string} the title of the node it was plugged into
 */
export function insertPreset(name, place = null) {
  const { graph } = app.canvas;
  const target = takerOf(graph);
  const node = window.LiteGraph.createNode(LOADER);
  graph.beforeChange?.();
  const { ds, canvas } = app.canvas;
  const { width, height } = canvas.getBoundingClientRect();
  node.pos = place ?? [
    width / 2 / ds.scale - ds.offset[0] - node.size[0] / 2,
    height / 2 / ds.scale - ds.offset[1] - node.size[1] / 2,
  ];
  graph.add(node);
  const widget = node.widgets.find((one) => one.name === "preset_name");
  offer(widget, [name]); // imported since the page was loaded
  choose(node, widget, name);
  if (target) node.connect(0, target, target.findInputSlot("preset"));
  graph.afterChange?.();
  graph.setDirtyCanvas?.(true, true);
  return target ? String(target.title ?? "") : null;
}

// The one that is selected, else the only one without a preset.
function takerOf(graph) {
  const takers = graph.nodes.filter((node) => TAKERS.has(node.comfyClass));
  const selected = takers.filter((node) => app.canvas.selected_nodes?.[node.id]);
  if (selected.length) return selected.length === 1 ? selected[0] : null;
  const free = takers.filter((node) => node.inputs?.some((input) => input.name === "preset" && input.link == null));
  return free.length === 1 ? free[0] : null;
}

function valueOf(node, name) {
  const linked = node.inputs?.some((input) => input.widget?.name === name && input.link != null);
  return linked || !name ? undefined : node.widgets?.find((widget) => widget.name === name)?.value;
}

function text(node, name) {
  const value = valueOf(node, name);
  return typeof value === "string" ? value.slice(0, 400) : "";
}

function number(node, name) {
  const value = valueOf(node, name);
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
