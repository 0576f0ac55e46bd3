// Q-Sched's part of the page: socket colours, the live map of a calibration, and the curves of presets.
import { app } from "../../scripts/app.js";
import { addArena, listenArenas, restoreArenas } from "./arena/arena.js";
import { addMap, listen } from "./calibration/live_map.js";
import { addCompare } from "./calibration/slider.js";
import { addCurve } from "./presets/curve.js";
import { listenErrors, restoreErrors } from "./reports/errors.js";
import { foldAdvanced } from "./shared/advanced_widgets.js";
import { restoreHistory } from "./shared/history.js";
import { addLibrary, refreshLibrary } from "./library/tab.js";
import { redrawPanels } from "./shared/panel.js";
import { addReport, listenReports } from "./reports/report.js";
import { colourSockets } from "./shared/sockets.js";
import { addStyles } from "./shared/style.js";
import { translateNotes } from "./templates/translate_notes.js";

app.registerExtension({
  name: "qsched",

  setup() {
    addStyles("qsched.css");
    addStyles("templates/templates.css");
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
