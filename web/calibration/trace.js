// How a search went on: the best gain so far over the trials, and the colours of the map in words.
import { bestSoFar, gainsOf, shareOf, signed, unitOf } from "./gains.js";
import { drawBest, drawIdentity, drawPoint, strokes } from "./search_map.js";
import { text } from "../shared/texts.js";
import { onScale } from "../shared/theme.js";

const LEFT = 52, RIGHT = 6;

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{x: number, y: number, width: number, height: number}} box
 * @param {object} theme
 * @param {import("../shared/records.js").Study} study
 */
export function drawTrace(context, box, theme, study) {
  const gains = gainsOf(study), best = bestSoFar(study, gains), { points } = study;
  const all = gains.filter((gain) => gain !== null);
  const unit = unitOf(gains) || 1;
  const high = 1.12 * Math.max(unit * 0.25, ...all);
  const low = Math.max(-1.5 * unit, Math.min(-0.25 * high, ...all));
  const length = Math.max(2, points.length);
  const x = (i) => box.x + LEFT + ((box.width - LEFT - RIGHT) * (i + 0.5)) / length;
  const y = (gain) => box.y + 6 + (box.height - 10) * (1 - (Math.max(low, gain) - low) / (high - low));
  strokes(context, theme.faint, 0.8, [[box.x + LEFT, y(0)], [box.x + box.width - RIGHT, y(0)]]);
  gains.forEach((gain, i) => {
    if (gain === null) return;
    drawPoint(context, theme, x(i), y(gain), onScale(theme.scale, shareOf(gain, unit)), points[i].whole, 0.5);
  });
  drawSteps(context, theme.gain, 1.8, best, x, y);
  context.font = "10px Arial, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = theme.faint;
  const top = best.at(-1) ?? 0;
  if (y(0) - y(top) > 10) context.fillText(signed(top), box.x + LEFT - 4, y(top));
  context.fillText(text("map.identity"), box.x + LEFT - 4, y(0));
}

/** One row: signs first, then the colours with their numbers; what finds no room is left out. */
export function drawLegend(context, box, theme, study) {
  const unit = unitOf(gainsOf(study));
  const y = box.y + box.height / 2;
  const half = onScale(theme.scale, 0.5);
  const dropped = study.points.some((point) => !point.whole);
  const signs = [[text("map.best"), drawBest], [text("map.identity"), drawIdentity]];
  if (dropped) signs.push([text("map.dropped"), (c, t, x, at) => drawPoint(c, t, x, at, half, false)]);
  context.font = "10px Arial, sans-serif";
  context.textBaseline = "middle";
  const texts = unit ? [`−${(2 * unit).toPrecision(2)}`, `+${unit.toPrecision(2)}`] : [];
  const bar = 48;
  const scaleWidth = unit ? bar + 12 + texts.reduce((sum, number) => sum + context.measureText(number).width, 0) : 0;
  let x = box.x + 12;
  for (const [name, draw] of signs) {
    const width = 13 + context.measureText(name).width + 14;
    if (x + width > box.x + box.width - scaleWidth) break;
    draw(context, theme, x, y);
    context.fillStyle = theme.faint;
    context.textAlign = "left";
    context.fillText(name, x + 13, y);
    x += width;
  }
  if (!unit) return;
  const left = box.x + box.width - scaleWidth + 6;
  context.fillStyle = theme.faint;
  context.fillText(texts[0], left - 4, y);
  const start = left + context.measureText(texts[0]).width;
  for (let i = 0; i < bar; i++) {
    context.fillStyle = onScale(theme.scale, -1 + (2 * i) / (bar - 1));
    context.fillRect(start + i, y - 4, 1.5, 8);
  }
  context.fillStyle = theme.faint;
  context.fillText(texts[1], start + bar + 5, y);
}

// The best so far stays as it is until it is beaten.
function drawSteps(context, colour, width, best, x, y) {
  const line = [];
  best.forEach((gain, i) => {
    if (gain === null) return;
    if (line.length) line.push([x(i), line.at(-1)[1]]);
    line.push([x(i), y(gain)]);
  });
  if (line.length > 1) strokes(context, colour, width, line);
}
