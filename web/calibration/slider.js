// Before and after, on one another with a divider: of a calibration that runs, and of its result.
import { api } from "../../../scripts/api.js";
import { followOutput } from "../shared/history.js";
import { keepPointer, make, Panel } from "../shared/panel.js";
import { readLivePair, readPictures } from "../shared/records.js";
import { text } from "../shared/texts.js";

const NODE = "QSchedCalibrate";
const HEIGHT = 200;
const STEP = 5, FINE = 1; // percent of the width, by a key; with Shift
const MIDDLE = 50;

const sliders = new WeakMap(); // by node

/** To be called for every node that is made. */
export function addCompare(node) {
  if (node.comfyClass !== NODE) return;
  sliders.set(node, new Compare(node));
  followOutput(node, (output) => sliders.get(node).showResult(readPictures(output?.qsched_pictures?.[0])));
}

/** @param {unknown} pair of an event: the same prompts by the stock sampler and by the candidate of the moment */
export function showLivePair(node, pair) {
  const known = readLivePair(pair);
  if (known) sliders.get(node)?.showLive(known);
}

class Compare extends Panel {
  constructor(node) {
    super(node, "qsched_compare", make("div", "qsched-stage"));
    this.result = null; // {rows, texts}
    this.page = 0;
    this.left = this.right = 0; // rows of the result
    this.divider = MIDDLE;
    this.build();
  }

  build() {
    const { body, element } = this;
    element.classList.add("qsched-compare");
    this.images = [make("img"), make("img")];
    this.labels = ["left", "right"].map((side) => {
      const label = make("button", `qsched-label qsched-${side}`);
      label.type = "button";
      label.addEventListener("click", () => this.nextRow(side));
      return label;
    });
    this.line = make("i", "qsched-divider");
    for (const image of this.images) image.draggable = false;
    body.append(...this.images, this.line, ...this.labels);
    body.tabIndex = 0;
    body.setAttribute("role", "slider");
    body.setAttribute("aria-valuemin", "0");
    body.setAttribute("aria-valuemax", "100");
    this.title = make("span");
    this.turns = [-1, 1].map((step) => {
      const button = make("button", `pi ${step < 0 ? "pi-chevron-left" : "pi-chevron-right"}`);
      button.type = "button";
      button.addEventListener("click", () => this.turn(step));
      return button;
    });
    this.text.append(this.title, ...this.turns);
    keepPointer(element);
    body.addEventListener("pointerdown", (event) => this.onPointer(event));
    body.addEventListener("pointermove", (event) => this.onPointer(event));
    body.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** Of a pair, two addresses of pictures. */
  showLive({ before, after }) {
    this.result = null;
    this.showPair([before, after], [text("compare.stock"), text("compare.candidate")], text("compare.live"), 1);
  }

  /** @param {?{rows: {name: string, files: object[]}[], texts: string[]}} result null: nothing is there */
  showResult(result) {
    this.result = result;
    if (!result) return this.place(false, 0);
    this.page = Math.min(this.page, result.rows[0].files.length - 1);
    // The quantised model against the repaired one, behind the reference and before another model.
    const repaired = result.rows.findIndex((row) => row.name.endsWith(REPAIRED));
    this.right = repaired > 0 ? repaired : result.rows.length - 1;
    this.left = this.right - 1;
    this.showPage();
  }

  showPage() {
    const { rows, texts } = this.result;
    const shown = [rows[this.left], rows[this.right]];
    const count = Math.min(...rows.map((row) => row.files.length));
    const title = [`${this.page + 1}/${count}`, texts[this.page]].filter(Boolean).join(" · ");
    this.showPair(shown.map((row) => urlOf(row.files[this.page])), shown.map((row) => nameOf(row.name)), title, count);
  }

  showPair(addresses, names, title, count) {
    this.images.forEach((image, i) => {
      if (image.getAttribute("src") !== addresses[i]) image.src = addresses[i];
      image.alt = names[i];
    });
    this.labels.forEach((label, i) => {
      label.textContent = names[i];
      label.title = this.result?.rows.length > 2 ? text("compare.other") : "";
    });
    this.title.textContent = this.title.title = title;
    for (const button of this.turns) button.style.display = count > 1 ? "" : "none";
    this.body.setAttribute("aria-label", text("compare.slider", { left: names[0], right: names[1] }));
    this.body.title = text("compare.keys");
    this.setDivider(this.divider);
    this.place(true, HEIGHT);
  }

  /** @param {number} percent of the width that shows the left picture */
  setDivider(percent) {
    this.divider = Math.min(100, Math.max(0, percent));
    this.images[1].style.clipPath = `inset(0 0 0 ${this.divider}%)`;
    this.line.style.left = `${this.divider}%`;
    this.body.setAttribute("aria-valuenow", String(Math.round(this.divider)));
  }

  /** The next row of the result on one side, so that any two can be compared. */
  nextRow(side) {
    const rows = this.result?.rows.length ?? 0;
    if (rows < 3) return;
    do this[side] = (this[side] + 1) % rows;
    while (this.left === this.right);
    this.showPage();
  }

  turn(step) {
    if (!this.result) return;
    const count = Math.min(...this.result.rows.map((row) => row.files.length));
    this.page = (this.page + step + count) % count;
    this.showPage();
  }

  onPointer(event) {
    if (event.target.closest("button")) return;
    if (event.type === "pointerdown" && event.button === 0) this.body.setPointerCapture(event.pointerId);
    if (!this.body.hasPointerCapture(event.pointerId)) return;
    const { left, width } = this.body.getBoundingClientRect();
    this.setDivider((100 * (event.clientX - left)) / width);
  }

  onKey(event) {
    const step = event.shiftKey ? FINE : STEP;
    const places = { ArrowLeft: this.divider - step, ArrowRight: this.divider + step, Home: 0, End: 100 };
    const turns = { ArrowUp: -1, ArrowDown: 1, PageUp: -1, PageDown: 1 };
    if (event.key in places) this.setDivider(places[event.key]);
    else if (event.key in turns) this.turn(turns[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const REPAIRED = "+ Q-Sched"; // what the name of the repaired row ends with
const NAMES = {
  quantised: "quantised", "quantised + Q-Sched": "repaired", "full precision": "full", "quantised, fitted": "fitted",
};
const OTHER = /^other model: (.*?)(, fitted)?$/;

function nameOf(name) {
  if (Object.hasOwn(NAMES, name)) return text(`compare.${NAMES[name]}`);
  const [, what, fitted] = name.match(OTHER) ?? [];
  return what === undefined ? name : text(fitted ? "compare.otherFitted" : "compare.otherModel", { what });
}

const urlOf = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);
