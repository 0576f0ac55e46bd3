// A text on a node: its first line large, the rest below it; both are scrolled where they are long, so that a node does
// not grow over the next one. The text can be selected and copied.
import { keepPointer, make, Panel } from "../shared/panel.js";
import { text } from "../shared/texts.js";

const MOST = 80; // pixels of the rest before it is scrolled
const LINE = 16, LETTER = 6; // until it can be measured
const SECONDS = 2;

export class Note extends Panel {
  constructor(node, name) {
    super(node, name, make("div", "qsched-scroll"));
    this.element.classList.add("qsched-note");
    this.headline = make("div", "qsched-headline qsched-scroll");
    this.rest = make("div", "qsched-rest");
    this.copy = make("button", "pi pi-copy qsched-copy");
    this.copy.type = "button";
    this.copy.addEventListener("click", () => this.copyText());
    this.text.append(this.headline, this.copy);
    this.body.append(this.rest);
    this.body.tabIndex = 0;
    keepPointer(this.element);
    // Of a selected text the host would copy the selected nodes.
    this.element.addEventListener("copy", (event) => event.stopPropagation());
    this.element.addEventListener("keydown", (event) => event.stopPropagation());
    this.observer.observe(this.rest);
  }

  /** @param {string} headline none: the note is not there @param {string} rest @param {string} state a CSS class's end */
  say(headline, rest = "", state = "") {
    this.headline.textContent = headline;
    this.rest.textContent = rest;
    this.element.dataset.state = state;
    this.copy.title = this.copy.ariaLabel = text("copy");
    this.place(Boolean(headline), rest ? this.restHeight() : 0);
  }

  restHeight() {
    const letters = Math.max(10, (this.node.size[0] - 40) / LETTER);
    const lines = this.rest.textContent.split("\n");
    const guess = LINE * lines.reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / letters)), 0);
    return Math.min(MOST, this.rest.offsetHeight || guess);
  }

  fit() {
    if (this.room && this.rest.offsetHeight) {
      this.room = this.restHeight();
      this.body.style.minHeight = `${this.room}px`;
    }
    super.fit();
  }

  async copyText() {
    const words = [this.headline.textContent, this.rest.textContent].filter(Boolean).join("\n");
    let copied = true;
    try {
      await navigator.clipboard.writeText(words);
    } catch {
      // Without https there is no clipboard to write to: the text is selected for the user's own keys.
      getSelection().selectAllChildren(this.rest.textContent ? this.element : this.headline);
      copied = false;
    }
    this.copy.title = text(copied ? "copied" : "selected");
    this.copy.classList.toggle("pi-check", copied);
    setTimeout(() => {
      this.copy.classList.remove("pi-check");
      this.copy.title = text("copy");
    }, 1000 * SECONDS);
  }
}
