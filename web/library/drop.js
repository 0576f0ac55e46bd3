// A preset without a workflow that is dropped on the canvas: the host would say "unable to find workflow", so it becomes
// a loader node. All else is handed on to the host.
import { app } from "../../../scripts/app.js";
import { importFile } from "./client.js";
import { isPlainPreset, mayBePresetOnCanvas } from "./files.js";
import { insertPreset } from "./graph.js";
import { text } from "../shared/texts.js";

/**
 * To be called once.
 * @param {function(): Promise} imported is called when there is a new file
 */
export function addCanvasDrop(imported) {
  // The element around the canvas and its nodes, not the document: other packs' drops elsewhere are none of ours. While
  // the event goes down to its target, so that it comes before the host's own listener.
  const place = app.canvas.canvas.closest("#graph-canvas-container") ?? app.canvas.canvas.parentElement;
  place.addEventListener("drop", (event) => takeDrop(event, imported), true);
}

function takeDrop(event, imported) {
  const files = [...(event.dataTransfer?.files ?? [])];
  const onNode = app.dragOverNode; // it may take files of its own
  const inOurTab = event.target?.closest?.(".qsched-library, input, textarea");
  if (!files.length || !files.every(mayBePresetOnCanvas) || onNode || inOurTab) return;
  event.preventDefault();
  event.stopPropagation();
  app.canvas.adjustMouseEvent?.(event);
  const place = [event.canvasX, event.canvasY];
  open(files, place, imported);
}

async function open(files, [x, y], imported) {
  let down = 0;
  for (const file of files) {
    try {
      if (!(await isPlainPreset(file))) {
        await app.handleFile(file, "file_drop");
        continue;
      }
      const { name } = await importFile(file);
      await imported();
      insertPreset(name, Number.isFinite(x) && Number.isFinite(y) ? [x, y + down] : null);
      down += 160;
    } catch (error) {
      app.extensionManager.toast.add({ severity: "error", summary: text("tab"), detail: `${file.name}: ${error.message}`, life: 8000 });
    }
  }
}
