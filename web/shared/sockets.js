// Colours of our socket types on the classic canvas; qsched.css holds them for Nodes 2.0.
import { app } from "../../../scripts/app.js";

const COLOURS = {
  QSCHED_PRESET: "#00bfa5",
  QSCHED_PLAN: "#d4915d",
  QSCHED_PROMPTS: "#e573c0",
  QSCHED_METRIC: "#c0ca33",
  QSCHED_OBSERVATION: "#7986cb",
  QSCHED_PRECISION: "#26a6d9",
  QSCHED_CALIBRATION_SETTINGS: "#a1887f",
};

/**
 * For the classic canvas. The host empties its tables whenever it loads a palette, so this is called again then.
 * A palette that names our types has its way.
 */
export function colourSockets() {
  const tables = [app.canvas?.default_connection_color_byType, app.canvas?.constructor?.link_type_colors];
  let changed = false;
  for (const table of tables) {
    for (const [type, colour] of Object.entries(COLOURS)) {
      if (table && !table[type]) {
        table[type] = colour;
        changed = true;
      }
    }
  }
  if (changed) app.canvas.setDirty(true, true);
}
