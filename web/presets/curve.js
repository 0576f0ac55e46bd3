// c_x and c_eps over the steps, on nodes that use or make a preset.
import { api } from "../../../scripts/api.js";
import { followOutput } from "../shared/history.js";
import { strokes } from "../calibration/search_map.js";
import { isOnPage } from "../shared/nodes.js";
import { Plot } from "../shared/panel.js";
import { readCurve } from "../shared/records.js";
import { text } from "../shared/texts.js";

const NODES = new Set(["QSchedSampler", "QSchedLoadPreset", "QSchedCoefficients", "QSchedApply", "QSchedSamplerSelect"]);
const HEIGHT = 84, LEFT = 34, RIGHT = 40, FOOT = 14;
const STRIP = 16; // more height where a preset has a plan of precision
const SHADE = { 4: 0.12, 8: 0.4, 16: 0.75 }; // of a step, by the bits of its activations

const panels = new WeakMap();

/** To be called for every node that is made. Nothing is added to it before there is something to draw. */
export function addCurve(node) {
  if (!NODES.has(node.comfyClass)) return;
  followOutput(node, (output) => showOutput(node, output));
  if (node.comfyClass === "QSchedLoadPreset") follow(node);
}

function showOutput(node, output) {
  if (Array.isArray(output?.qsched_curve)) show(node, readCurve(output.qsched_curve[0]));
}

// Load Q-Sched Preset shows a file as soon as it is chosen.
function follow(node) {
  const widget = node.widgets?.find((one) => one.name === "preset_name");
  if (!widget) return;
  const { callback } = widget;
  widget.callback = function () {
    callback?.apply(this, arguments);
    showFile(node, widget);
  };
  setTimeout(() => showFile(node, widget)); // once a loaded workflow has put its value in
}

async function showFile(node, widget) {
  const name = widget.value;
  if (typeof name !== "string" || !name) return show(node, null);
  try {
    const answer = await api.fetchApi(`/qsched/curve?preset=${encodeURIComponent(name)}`);
    const curve = answer.ok ? readCurve(await answer.json()) : null;
    if (widget.value === name) show(node, curve);
  } catch (error) {
    console.warn("Q-Sched: the preset's curve could not be read.", error);
  }
}

function show(node, curve) {
  let panel = panels.get(node);
  if ((!curve && !panel) || !isOnPage(node)) return;
  if (!panel) {
    panel = new Plot(node, "qsched_curve");
    panels.set(node, panel);
  }
  panel.canvas.dataset.steps = curve?.c_x.length ?? 0;
  if (!curve) return panel.show("", 0);
  const count = curve.c_x.length;
  const steps = precisionOf(curve);
  panel.canvas.dataset.precision = steps.join(" ");
  const strip = steps.length ? STRIP : 0;
  panel.show(text(count === 1 ? "curve.one" : "curve.many", { count }), HEIGHT + strip, (context, width, height, theme) => {
    drawCurve(context, width, height - strip, theme, curve);
    if (strip) drawPrecision(context, width, height, theme, curve, steps);
  });
}

function drawCurve(context, width, height, theme, { c_x, c_eps, sigmas }) {
  const values = [...c_x, ...c_eps, 1];
  const middle = (Math.min(...values) + Math.max(...values)) / 2;
  const reach = Math.max(0.02, 0.5 * (Math.max(...values) - Math.min(...values)));
  const x = (i) => LEFT + (width - LEFT - RIGHT) * (c_x.length > 1 ? i / (c_x.length - 1) : 0.5);
  const y = (value) => 8 + ((height - FOOT - 12) * (1 - (value - middle) / reach)) / 2;
  context.font = "10px Arial, sans-serif";
  context.textBaseline = "middle";
  context.fillStyle = theme.faint;
  context.textAlign = "right";
  context.fillText("1", LEFT - 8, y(1));
  strokes(context, theme.faint, 0.8, [[LEFT - 4, y(1)], [width - RIGHT + 4, y(1)]]);
  for (const [values, colour] of [[c_x, theme.loss], [c_eps, theme.gain]]) {
    const line = values.map((value, i) => [x(i), y(value)]);
    strokes(context, colour, 1.8, line);
    context.fillStyle = colour;
    for (const [left, top] of line.length > 40 ? [] : line) context.fillRect(left - 2, top - 2, 4, 4);
  }
  label(context, theme, width - RIGHT + 8, [["c_x", y(c_x.at(-1)), theme.loss], ["c_eps", y(c_eps.at(-1)), theme.gain]]);
  context.fillStyle = theme.faint;
  context.textAlign = "left";
  const bottom = height - FOOT / 2;
  if (Number.isFinite(sigmas[0])) context.fillText(`σ ${Number(sigmas[0].toPrecision(3))}`, LEFT - 4, bottom);
  context.textAlign = "right";
  const last = sigmas[c_x.length - 1];
  if (c_x.length > 1 && Number.isFinite(last)) context.fillText(`σ ${Number(last.toPrecision(3))}`, width - RIGHT + 4, bottom);
}

// What each step's precision is called: the model's number where there are several, and the bits of its activations.
function precisionOf({ bits, models }) {
  return bits.map((count, i) => `${models.length ? models[i] + 1 : ""}${count > 4 ? `a${count}` : ""}`);
}

// A strip below the curves, a part for each step.
function drawPrecision(context, width, height, theme, { bits, models }, steps) {
  const part = (width - LEFT - RIGHT) / steps.length, top = height - STRIP + 2;
  context.textAlign = "center";
  steps.forEach((name, i) => {
    const left = LEFT + part * i;
    context.globalAlpha = SHADE[bits[i]];
    context.fillStyle = models[i] % 2 ? theme.gain : theme.loss;
    context.fillRect(left, top, Math.max(1, part - 1), STRIP - 4);
    context.globalAlpha = 1;
    context.fillStyle = theme.faint;
    if (name && part > 18) context.fillText(name, left + part / 2, top + STRIP / 2 - 2);
  });
}

// Names at the ends of the lines, apart from each other.
function label(context, theme, x, names) {
  const [above, below] = names.sort((a, b) => a[1] - b[1]);
  const push = Math.max(0, (12 - (below[1] - above[1])) / 2);
  context.textAlign = "left";
  for (const [[text, y, colour], way] of [[above, -1], [below, 1]]) {
    context.fillStyle = colour;
    context.fillText(text, x, y + way * push);
  }
}
