// A line of text and a canvas on a node, as tall as asked for, in both renderers.
import { readTheme } from "./theme.js";

const MARGIN = 6; // of the classic canvas around a widget
const TEXT = 30; // the line above the canvas and the frame

const panels = new WeakMap(); // by element

/** A drawing on a node. `draw(context, width, height, theme)` is called whenever size, theme or data change. */
export class Panel {
  constructor(node, name) {
    this.node = node;
    this.height = 0;
    this.draw = null;
    this.element = document.createElement("div");
    this.element.className = "qsched-panel";
    this.text = document.createElement("div");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.element.append(this.text, this.canvas);
    this.widget = node.addDOMWidget(name, "qsched", this.element, {
      serialize: false,
      hideOnZoom: false,
      hideInPanel: true,
      margin: MARGIN,
      getMinHeight: () => this.height,
      getMaxHeight: () => this.height,
    });
    this.widget.serialize = false;
    this.widget.computeSize = (width) => [width ?? 0, this.height];
    new ResizeObserver(() => this.redraw()).observe(this.element);
    panels.set(this.element, this);
  }

  /** Text, the canvas's height (0: none), and what to draw. Neither text nor canvas: the panel is not there. */
  show(text, height, draw = null) {
    this.text.textContent = text;
    this.draw = draw;
    this.canvas.style.display = height ? "block" : "none";
    this.canvas.style.height = `${height}px`;
    this.canvas.setAttribute("aria-label", text);
    this.setHeight(text || height ? height + TEXT + 2 * MARGIN : 0);
    this.redraw();
  }

  setHeight(height) {
    if (height === this.height) return;
    this.height = height;
    this.element.style.display = height ? "" : "none";
    this.element.style.height = this.element.style.maxHeight = `${Math.max(0, height - 2 * MARGIN)}px`;
    const [width, tall] = this.node.size;
    const needed = this.node.computeSize()[1];
    if (needed > tall) this.node.setSize([width, needed]);
    this.node.setDirtyCanvas?.(true, true);
  }

  redraw() {
    if (!this.draw || !this.canvas.clientWidth) return; // not on the page: the observer calls again
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const fine = Math.min(4, 2 * (window.devicePixelRatio || 1)); // still sharp when zoomed in
    this.canvas.width = width * fine;
    this.canvas.height = height * fine;
    const context = this.canvas.getContext("2d");
    context.scale(fine, fine);
    this.draw(context, width, height, readTheme(this.element));
  }
}

/** After another palette was chosen. What is not on the page now is drawn when it comes back. */
export function redrawPanels() {
  for (const element of document.querySelectorAll(".qsched-panel")) panels.get(element)?.redraw();
}
