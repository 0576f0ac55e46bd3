// Lines of text on a node, wrapped, in both renderers.
import { Panel } from "./panel.js";

const LINE = 16, FRAME = 26, LETTER = 5.7, SIDES = 40; // pixels: a line of text, around it, and a letter's mean width

/** A text of a few lines or many: what is beyond `most` lines is scrolled to. */
export class Note extends Panel {
  constructor(node, name, most = Infinity) {
    super(node, name);
    this.most = most;
    this.element.classList.add("qsched-note");
  }

  /** @param {string} text none: the note is not there */
  say(text) {
    this.show(text, 0);
    const letters = Math.max(10, (this.node.size[0] - SIDES) / LETTER);
    const lines = text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / letters)), 0);
    this.element.style.pointerEvents = lines > this.most ? "auto" : "";
    if (text) this.setHeight(Math.min(lines, this.most) * LINE + FRAME);
  }
}
