// Where a calibration has searched: c_x against c_eps, coloured by the gain. As in calibration/plots/search_map.py's jaq_map.
import { gainsOf, isIdentity, shareOf, unitOf } from "./gains.js";
import { text } from "../shared/texts.js";
import { onScale } from "../shared/theme.js";

const LEFT = 34, GAP = 16, TITLE = 15, TICKS = 14;

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{x: number, y: number, width: number, height: number}} box
 * @param {object} theme
 * @param {import("../shared/records.js").Study} study
 * The frame is the trust region, widened where points lie outside.
 */
export function drawMap(context, box, theme, study) {
  const radius = study.radius;
  const panels = panelsOf(study);
  const values = study.points.flatMap((point) => Object.values(point.axes));
  const reach = 1.06 * values.reduce((most, value) => Math.max(most, Math.abs(value - 1)), radius);
  const room = (box.width - LEFT - (panels.length - 1) * GAP) / panels.length;
  const side = Math.max(20, Math.min(room, box.height - TITLE - TICKS));
  const start = box.x + LEFT + Math.max(0, (box.width - LEFT - panels.length * (side + GAP) + GAP) / 2);
  const gains = gainsOf(study);
  const unit = unitOf(gains);
  const size = Math.min(1, side / (13 * Math.sqrt(Math.max(1, study.points.length))));
  // What counts lies on top: those that were tried on all prompts, and the good ones.
  const order = [...gains.keys()].sort(
    (a, b) => study.points[a].whole - study.points[b].whole || (gains[a] ?? -Infinity) - (gains[b] ?? -Infinity),
  );
  panels.forEach(({ title, step, end }, number) => {
    const left = start + number * (side + GAP);
    const top = box.y + TITLE;
    const place = (c_x, c_eps) => [
      left + ((c_x - 1) / reach / 2 + 0.5) * side,
      top + (0.5 - (c_eps - 1) / reach / 2) * side,
    ];
    drawFrame(context, theme, { left, top, side, place, title, radius, first: number === 0 });
    context.save();
    context.beginPath();
    context.rect(left, top, side, side);
    context.clip();
    for (const i of order) {
      const { axes, whole } = study.points[i];
      const [x, y] = [axes[`c_x${end}`], axes[`c_eps${end}`]];
      if (x === undefined || y === undefined || isIdentity(study.points[i])) continue;
      const colour = gains[i] === null ? null : onScale(theme.scale, shareOf(gains[i], unit));
      drawPoint(context, theme, ...place(x, y), colour, whole, Math.max(0.45, size));
    }
    drawIdentity(context, theme, ...place(1, 1));
    if (study.best) drawBest(context, theme, ...place(study.best.c_x[step] ?? 1, study.best.c_eps[step] ?? 1));
    context.restore();
  });
}

/** The height that a map of a width can fill: its planes are squares. */
export function mapHeight(study, width) {
  const count = panelsOf(study).length;
  return (width - LEFT - (count - 1) * GAP) / count + TITLE + TICKS;
}

/** A candidate: hollow where it was dropped early, a small x where it could not be scored (no colour). */
export function drawPoint(context, theme, x, y, colour, whole, size = 1) {
  if (colour === null) {
    strokes(context, theme.faint, 1.2, [[x - 3, y - 3], [x + 3, y + 3]], [[x - 3, y + 3], [x + 3, y - 3]]);
    return;
  }
  const radius = (whole ? 4.6 : 3.2) * size;
  disc(context, x, y, radius + 0.7, whole ? theme.ink : theme.faint);
  disc(context, x, y, radius, colour);
  if (!whole) disc(context, x, y, radius * 0.5, theme.paper);
}

/** The cross where nothing is changed. */
export function drawIdentity(context, theme, x, y) {
  const cross = (arm) => [[[x - arm, y], [x + arm, y]], [[x, y - arm], [x, y + arm]]];
  strokes(context, theme.paper, 4, ...cross(6.5));
  strokes(context, theme.ink, 1.6, ...cross(5.5));
}

/** The ring around the best candidate. */
export function drawBest(context, theme, x, y) {
  for (const [colour, width] of [[theme.paper, 4], [theme.ink, 1.8]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.stroke();
  }
}

// The planes there are: one per searched end, of a table the first, a middle and the last step.
function panelsOf(study) {
  const axes = new Set(study.points.flatMap((point) => Object.keys(point.axes)));
  const steps = study.best?.c_x.length ?? 1;
  const ends = [[text("map.start"), 0, "_first"], [text("map.end"), steps - 1, "_last"]];
  const lines = ends.filter(([, , end]) => axes.has(`c_x${end}`));
  if (axes.has("c_x")) lines.push([text("map.every"), 0, ""]);
  if (!lines.length) {
    const places = [...axes].map((axis) => Number(/^c_x_(\d+)$/.exec(axis)?.[1])).filter(Boolean).sort((a, b) => a - b);
    const shown = [...new Set([places[0], places[places.length >> 1], places.at(-1)])].filter(Boolean);
    lines.push(...shown.map((step) => [text("map.step", { step, steps: Math.max(steps, step) }), step - 1, `_${step}`]));
  }
  if (!lines.length) lines.push(ends[0]);
  return lines.map(([title, step, end]) => ({ title, step, end }));
}

function drawFrame(context, theme, { left, top, side, place, title, radius, first }) {
  const [x0, y0] = place(1 - radius, 1 + radius);
  const [x1, y1] = place(1 + radius, 1 - radius);
  const [x, y] = place(1, 1);
  strokes(context, theme.grid, 1, [[x, y0], [x, y1]], [[x0, y], [x1, y]], [[x0, y1], [x1, y0]]);
  context.strokeStyle = theme.faint;
  context.lineWidth = 0.8;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.fillStyle = theme.ink;
  context.font = "11px Arial, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "center";
  context.fillText(title, left + side / 2, top - TITLE / 2);
  context.fillStyle = theme.faint;
  context.font = "10px Arial, sans-serif";
  const [low, high] = [1 - radius, 1 + radius].map((value) => String(Number(value.toFixed(2))));
  const bottom = top + side + TICKS / 2;
  for (const [text, at] of [[low, x0 + 6], ["c_x", x], [high, x1 - 6]]) context.fillText(text, at, bottom);
  if (!first) return;
  context.textAlign = "right";
  for (const [text, at] of [[low, y1 - 4], ["c_eps", y], [high, y0 + 4]]) context.fillText(text, left - 3, at);
}

function disc(context, x, y, radius, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/** Straight lines, each a list of its points. */
export function strokes(context, colour, width, ...lines) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  for (const [start, ...rest] of lines) {
    context.moveTo(...start);
    for (const point of rest) context.lineTo(...point);
  }
  context.stroke();
}
