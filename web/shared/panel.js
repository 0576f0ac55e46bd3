// Panels on nodes, in both renderers: a line of text, and below it something that grows with the node.
import { readTheme } from "./theme.js";

const MARGIN = 6; // of the classic canvas around a widget
const FRAME = 12, GAP = 4; // padding and border, between the parts
const LINE = 16, LETTER = 6; // pixels: a line of text and a mean letter, until it can be measured
const MOST_LINES = 4; // of a head that cannot be measured yet: a node that was made too tall stays so

const panels = new WeakMap(); // by element

/** A head above a body. The head is as tall as its text, the body at least as tall as asked for. */
export class Panel {
  /**
   * @param {object} node
   * @param {string} name of the widget
   * @param {HTMLElement} body
   */
  constructor(node, name, body) {
    this.node = node;
    this.height = this.room = 0;
    this.body = body;
    this.observer = new ResizeObserver(() => this.fit());
    this.element = make("div", "qsched-panel");
    this.text = make("div", "qsched-head");
    body.classList.add("qsched-body");
    this.element.append(this.text, body);
    this.observer.observe(this.text);
    this.widget = node.addDOMWidget(name, "qsched", this.element, {
      serialize: false,
      hideOnZoom: false,
      hideInPanel: true,
      margin: MARGIN,
      getMinHeight: () => this.height,
      getMaxHeight: () => (this.room ? undefined : this.height),
    });
    this.widget.serialize = false;
    this.place(false, 0);
    panels.set(this.element, this);
  }

  /** @param {boolean} there @param {number} room the body's least height; 0: there is no body */
  place(there, room) {
    this.room = there ? room : 0;
    this.element.style.display = there ? "" : "none";
    this.widget.hidden = !there; // takes no place on the classic canvas
    this.body.style.display = this.room ? "" : "none";
    this.body.style.minHeight = `${this.room}px`;
    this.fit();
  }

  /** Asks the host for the height that is needed. */
  fit() {
    const there = this.element.style.display !== "none";
    const letters = Math.max(10, (this.node.size[0] - 40) / LETTER);
    const head = this.text.offsetHeight || LINE * Math.min(MOST_LINES, Math.ceil((this.text.textContent.length || 1) / letters));
    const inner = FRAME + head + (this.room ? this.room + GAP : 0);
    this.setHeight(there ? inner + 2 * MARGIN : 0);
  }

  setHeight(height) {
    if (height === this.height) return;
    this.height = height;
    const inner = `${Math.max(0, height - 2 * MARGIN)}px`;
    this.element.style.minHeight = inner;
    this.element.style.height = this.room ? "100%" : inner;
    const [width, tall] = this.node.size;
    const needed = this.node.computeSize()[1];
    if (needed > tall) this.node.setSize([width, needed]);
    this.node.setDirtyCanvas?.(true, true);
  }

  redraw() {}
}

/** A drawing below a text. `draw(context, width, height, theme)` is called whenever size, theme or data change. */
export class Plot extends Panel {
  constructor(node, name) {
    super(node, name, make("div", "qsched-plot"));
    this.draw = null;
    this.canvas = make("canvas");
    this.canvas.setAttribute("role", "img");
    this.body.append(this.canvas);
    new ResizeObserver(() => this.redraw()).observe(this.body);
  }

  /** Text, the drawing's least height (0: none), and what to draw. Neither text nor drawing: the panel is not there. */
  show(text, height, draw = null) {
    this.text.textContent = text;
    this.draw = draw;
    this.canvas.setAttribute("aria-label", text);
    this.place(Boolean(text || height), height);
    this.redraw();
  }

  redraw() {
    if (!this.draw || !this.body.clientWidth) return; // not on the page: the observer calls again
    const { clientWidth: width, clientHeight: height } = this.body;
    const fine = Math.min(4, 2 * (window.devicePixelRatio || 1)); // still sharp when zoomed in
    this.canvas.width = width * fine;
    this.canvas.height = height * fine;
    const context = this.canvas.getContext("2d");
    context.scale(fine, fine);
    this.draw(context, width, height, readTheme(this.element));
  }
}

/** An element of a kind, with its children. */
export function make(tag, kind = "", ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children);
  return element;
}

/** The node below must not be dragged, nor the canvas zoomed, by what is done inside an element. */
export function keepPointer(element) {
  element.addEventListener("pointerdown", (event) => event.button === 0 && event.stopPropagation());
  element.addEventListener("wheel", (event) => {
    const scrolls = event.target.closest?.(".qsched-scroll");
    if (scrolls && scrolls.scrollHeight > scrolls.clientHeight + 1) event.stopPropagation();
  });
}

/** After another palette was chosen. What is not on the page now is drawn when it comes back. */
export function redrawPanels() {
  for (const element of document.querySelectorAll(".qsched-panel")) panels.get(element)?.redraw();
}
