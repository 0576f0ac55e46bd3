// The blind vote on Q-Sched Arena: two pictures, keys, and once it is closed the result and what was what.
import { api } from "../../../scripts/api.js";
import { readBallot, readKey } from "./ballot.js";
import { followOutput } from "../shared/history.js";
import { allNodes, nodeById, rootGraph } from "../shared/nodes.js";
import { PAGE_HEADER } from "../shared/page_header.js";
import { make, Panel } from "../shared/panel.js";
import { translatedError, whenTranslated } from "../shared/sentences.js";
import { addStyles } from "../shared/style.js";
import { text } from "../shared/texts.js";

const NODE = "QSchedArena";
const HEIGHT = 400, HINT = 58, WIDTH = 540;
const MOST_NOTE = 400; // letters of what the server says
const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowDown: "skip", s: "skip", Backspace: "undo", f: "full", Enter: "close",
};

const arenas = new WeakMap();

/** To be called for every node that is made. */
export function addArena(node) {
  if (node.comfyClass !== NODE) return;
  arenas.set(node, new Arena(node));
  followOutput(node, (output) => arenas.get(node).open(output?.qsched_arena?.[0]));
}

/** To be called once: another tab has voted, or the server is back. */
export function listenArenas() {
  addStyles("arena/arena.css");
  api.addEventListener("qsched.arena", ({ detail }) => {
    for (const [, node] of allNodes()) {
      const arena = arenas.get(node);
      if (arena?.key && arena.key === detail?.key && !arena.busy) arena.refresh();
    }
  });
  api.addEventListener("reconnected", () => {
    for (const [, node] of allNodes()) if (arenas.get(node)?.key) arenas.get(node).refresh();
  });
}

/** After a workflow was loaded, a tab came back or a page was reloaded: votes of a node that has not run here. */
export async function restoreArenas() {
  const nodes = [...allNodes()].filter(([, node]) => arenas.has(node));
  if (!nodes.length) return;
  const workflow = rootGraph()?.id;
  try {
    const answer = await api.fetchApi(`/qsched/arena?workflow=${encodeURIComponent(workflow ?? "")}`);
    if (!answer.ok || workflow !== rootGraph()?.id) return;
    for (const { node, key } of (await answer.json()).nodes) arenas.get(nodeById(node) ?? {})?.open(key);
  } catch (error) {
    console.warn("Q-Sched: the vote could not be read.", error);
  }
}

class Arena extends Panel {
  constructor(node) {
    super(node, "qsched_arena", make("div"));
    this.key = "";
    this.ballot = null;
    this.shown = 0; // which pair, once it is closed
    this.turn = 0;
    this.busy = this.sure = false;
    this.note = "";
    this.build();
    this.render();
  }

  build() {
    const { element } = this;
    element.classList.add("qsched-arena");
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    this.text.setAttribute("aria-live", "polite");
    this.prompt = make("div", "prompt");
    this.images = ["left", "right"].map((side) => {
      const image = make("img");
      image.draggable = false;
      image.addEventListener("click", () => !this.ballot?.closed && this.act(side));
      image.addEventListener("load", () => this.render());
      image.addEventListener("error", () => this.render());
      return image;
    });
    this.captions = [make("figcaption"), make("figcaption")];
    const frames = this.images.map((image, i) => make("figure", "", image, this.captions[i]));
    this.pictures = make("div", "pictures", ...frames);
    this.range = make("i");
    this.scale = make("div", "scale", this.range, make("b"));
    this.buttons = Object.fromEntries(
      ["left", "skip", "right", "undo", "close", "full"].map((name) => {
        const button = make("button");
        button.type = "button";
        button.dataset.act = name;
        button.addEventListener("click", () => {
          element.focus({ preventScroll: true });
          this.act(name);
        });
        return [name, button];
      }),
    );
    element.replaceChildren(
      this.text, this.prompt, this.pictures, this.scale, make("div", "buttons", ...Object.values(this.buttons)),
    );
    // The node below must neither be dragged nor hear the keys.
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.stopPropagation();
      element.focus({ preventScroll: true });
    });
    element.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!name || !this.ballot || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    if (event.key === "Enter" && event.target !== this.element) return; // a button's own
    event.preventDefault();
    // Enter closes only what is complete: the button asks before it.
    if (!event.repeat && (name !== "close" || this.pair() === null)) this.act(name);
  }

  fit() {
    if (!this.buttons) return;
    this.room = this.ballot?.pictures.length ? HEIGHT : 0;
    this.element.style.display = "";
    this.widget.hidden = false; // it is there from the start, with its hint
    this.setHeight(this.room || HINT);
  }

  /** The pair that is asked, null where all of them have a vote. */
  pair() {
    const next = this.ballot.votes.indexOf(null);
    return next < 0 ? null : next;
  }

  /** @param {unknown} key of a ballot; anything else leaves what is there */
  open(key) {
    const next = readKey(key);
    if (!next) return;
    if (next !== this.key) this.ballot = null;
    this.key = next;
    this.refresh();
  }

  async refresh() {
    await this.ask(`/qsched/arena?key=${this.key}`);
  }

  async act(name) {
    const { ballot } = this;
    if (name === "full") return this.toggleFull();
    if (!ballot || this.busy) return;
    if (ballot.closed) return this.turnTo(name);
    const pair = name === "undo" ? ballot.last : name === "close" ? 0 : this.pair();
    if (pair === null) return;
    if ((name === "left" || name === "right") && !this.images.every(isLoaded)) return; // nobody has seen them
    if (name === "close" && this.pair() !== null && !this.sure) {
      this.sure = true;
      return this.render();
    }
    this.busy = true;
    await this.ask("/qsched/arena/vote", {
      method: "POST",
      headers: { ...PAGE_HEADER, "Content-Type": "application/json" },
      body: JSON.stringify({ key: this.key, pair, choice: name }),
    });
    this.busy = false;
  }

  turnTo(name) {
    const step = { left: -1, right: 1 }[name] ?? 0;
    this.shown = Math.min(this.ballot.votes.length - 1, Math.max(0, this.shown + step));
    this.render();
  }

  toggleFull() {
    const change = document.fullscreenElement === this.element ? document.exitFullscreen() : this.element.requestFullscreen();
    change.then(() => this.element.focus({ preventScroll: true })).catch(() => {});
  }

  /** Asks the server and shows its answer, unless a later question was put meanwhile. */
  async ask(path, options) {
    const turn = ++this.turn;
    let told = null, status = 0;
    try {
      const answer = await api.fetchApi(path, options);
      [status, told] = [answer.status, await answer.json()];
    } catch {
      // No answer, or none in JSON: status and told say so.
    }
    if (turn !== this.turn) return;
    this.sure = false;
    const ballot = status === 200 ? readBallot(told) : null;
    if (ballot) {
      if (ballot.closed && !this.ballot?.closed) this.shown = 0;
      this.ballot = ballot;
      this.note = "";
    } else if (options) {
      await whenTranslated();
      if (turn !== this.turn) return;
      this.note = status ? translatedError(String(told?.error ?? status).slice(0, MOST_NOTE)) : text("arena.lost");
      if (status) return this.refresh(); // another tab was faster
    } else if (status === 404) {
      this.ballot = null;
    } else {
      this.note = text("arena.lost");
    }
    this.render();
  }

  render() {
    const { ballot, element, buttons } = this;
    const pair = ballot && (ballot.closed ? this.shown : this.pair());
    const files = (pair !== null && ballot?.pictures[pair]) || [];
    element.dataset.state = !ballot ? "empty" : ballot.closed ? "closed" : pair === null ? "complete" : "open";
    element.dataset.pictures = ballot?.pictures.length ? "yes" : "no";
    const line = this.note || words(ballot, pair, this.images.some(isBroken));
    if (this.text.textContent !== line) this.text.textContent = line;
    this.text.title = line;
    this.prompt.textContent = this.prompt.title = (pair !== null && ballot?.texts[pair]) || "";
    this.images.forEach((image, i) => setSource(image, files[i]));
    this.captions.forEach((caption, i) => {
      caption.textContent = caption.title = ballot?.closed ? captionOf(ballot, pair, ["left", "right"][i]) : "";
    });
    this.pictures.style.visibility = files.length ? "" : "hidden";
    this.scale.style.display = ballot?.closed ? "" : "none";
    if (ballot?.closed) {
      this.range.style.left = `${100 * ballot.result.low}%`;
      this.range.style.width = `${100 * (ballot.result.high - ballot.result.low)}%`;
    }
    const asked = Boolean(ballot && !ballot.closed);
    label(buttons.left, text(asked ? "arena.left" : "arena.previous"), files.length > 0);
    label(buttons.right, text(asked ? "arena.right" : "arena.next"), files.length > 0);
    label(buttons.skip, text("arena.skip"), asked && files.length > 0);
    label(buttons.undo, text("arena.undo"), asked && ballot.pictures.length > 0 && ballot.last !== null);
    const count = ballot?.votes.filter((vote) => vote === null).length ?? 0;
    const close = this.sure ? text("arena.sure", { n: count }) : text("arena.close");
    label(buttons.close, close, asked && ballot.pictures.length > 0 && ballot.last !== null);
    label(buttons.full, text("arena.full"), files.length > 0);
    if (ballot?.pictures.length && this.node.size[0] < WIDTH) this.node.setSize([WIDTH, this.node.size[1]]);
    this.fit();
    // The next pair, so that it is there at once.
    for (const file of (asked && pair !== null && ballot.pictures[pair + 1]) || []) new Image().src = urlOf(file);
  }
}

function words(ballot, pair, broken) {
  if (!ballot) return text("arena.hint");
  const total = ballot.votes.length;
  if (ballot.closed) return sentence(ballot.result);
  const n = ballot.votes.filter((vote) => vote !== null).length;
  if (!ballot.pictures.length || broken) return text("arena.gone", { n });
  return pair === null ? text("arena.complete", { total }) : text("arena.progress", { n: pair + 1, total });
}

function sentence({ wins, losses, skips, low, high, verdict }) {
  const decided = wins + losses;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const parts = [text(`arena.${verdict}`)];
  if (decided) {
    parts.push(text("arena.won", { wins, decided }));
    parts.push(`${percent(wins / decided)} [${percent(low)}, ${percent(high)}]`);
  }
  if (skips) parts.push(text("arena.skipped", { skips }));
  return parts.join(" · ");
}

function captionOf(ballot, pair, side) {
  const name = text(ballot.sides[pair] === side ? "arena.with" : "arena.without");
  return ballot.votes[pair] === side ? `${name} ✓ ${text("arena.yours")}` : name;
}

function label(button, name, there) {
  button.textContent = name;
  button.style.display = there ? "" : "none";
}

const urlOf = (file) => api.apiURL(`/view?filename=${file}&subfolder=qsched_arena&type=temp`);
const isLoaded = (image) => image.complete && image.naturalWidth > 0;
const isBroken = (image) => image.hasAttribute("src") && image.complete && image.naturalWidth === 0;

function setSource(image, file) {
  if (image.dataset.file === (file ?? "")) return;
  image.dataset.file = file ?? "";
  if (file) image.src = urlOf(file);
  else image.removeAttribute("src");
}
