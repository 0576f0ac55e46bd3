// Q-Sched's part of the page: socket colours, the live map of a calibration, and the curves of presets.
import { app } from "../../scripts/app.js";
import { addArena, listenArenas, restoreArenas } from "./arena.js";
import { addMap, listen } from "./calibrate.js";
import { addCompare } from "./compare.js";
import { addCurve } from "./curve.js";
import { listenErrors, restoreErrors } from "./errors.js";
import { foldAdvanced } from "./fold.js";
import { restoreHistory } from "./history.js";
import { addLibrary, refreshLibrary } from "./library.js";
import { redrawPanels } from "./panel.js";
import { addReport, listenReports } from "./report.js";
import { colourSockets } from "./sockets.js";
import { addStyles } from "./style.js";
import { translateNotes } from "./translate_notes.js";

app.registerExtension({
  name: "qsched",

  setup() {
    addStyles("qsched.css");
    addStyles("templates.css");
    addLibrary();
    listen();
    listenReports();
    listenErrors();
    listenArenas();
    // A palette is on the page once the root's style or the body's class has changed; there is no event for it.
    let waiting = false;
    const palette = new MutationObserver(() => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => {
        waiting = false;
        colourSockets();
        redrawPanels();
      }, 100);
    });
    palette.observe(document.documentElement, { attributes: true, attributeFilter: ["style", "class"] });
    palette.observe(document.body, { attributes: true, attributeFilter: ["class"] });
  },

  nodeCreated(node) {
    foldAdvanced(node);
    addReport(node);
    addMap(node);
    addCompare(node);
    addCurve(node);
    addArena(node);
  },

  beforeConfigureGraph(workflow) {
    return translateNotes(workflow);
  },

  afterConfigureGraph() {
    colourSockets();
    restoreArenas();
    restoreHistory();
    restoreErrors();
    refreshLibrary();
  },
});
