// What the server says, in the page's language. The server writes English; a catalogue per language holds each sentence
// under its English text, in which {n} stands for what the server puts in. What no catalogue knows is shown as it came.
// The catalogue is fetched when it is first needed: `python -m scripts.sentences` says what is missing in it.
import { languageName } from "./texts.js";

const DEEPEST = 5; // of phrases inside phrases

const catalogues = new Map(); // by language, once fetched
const fetches = new Map(); // by language, while they are on their way
const listeners = [];

/** @param {() => void} listener called when a catalogue came: what was shown before is to be shown anew */
export const onCatalogue = (listener) => listeners.push(listener);

/** @param {string} report lines of English @returns {string} those that are known in the page's language */
export function translated(report) {
  const catalogue = report && pageCatalogue();
  return catalogue ? report.split("\n").map((line) => catalogue.line(line)).join("\n") : report;
}

/**
 * @param {string} message of an error: "Q-Sched: <what is wrong> Fix: <what to do>", on one line or two
 * @returns {string} what is known of it in the page's language
 */
export function translatedError(message) {
  const catalogue = pageCatalogue();
  const [, what, gap, fix] = (catalogue && /^Q-Sched: (.*?)(?:(\s)Fix: (.*))?$/s.exec(message)) || [];
  if (!what) return message;
  const label = catalogue.sentence("Fix:") ?? "Fix:", blank = label.endsWith(":") ? " " : ""; // ： is wide by itself
  const toDo = fix ? `${gap}${label}${blank}${catalogue.sentence(fix) ?? fix}` : "";
  return `Q-Sched: ${catalogue.sentence(what) ?? what}${toDo}`;
}

/** @returns {Promise<void>} once the page's catalogue is there, or cannot be had: for texts that are shown only once */
export async function whenTranslated() {
  await fetchCatalogue(languageName());
}

class Catalogue {
  constructor({ sentences, phrases }) {
    this.sentences = patternsOf(sentences);
    this.phrases = patternsOf(phrases);
  }

  /** @returns {?string} null where it is none that is known */
  sentence(text) {
    return this.match(this.sentences, text, 0);
  }

  line(line) {
    const [, start, text] = /^((?:OK|TO DO|OPTIONAL) {2,}|\s*)(.*)$/s.exec(line);
    const known = this.sentence(text);
    if (known !== null) return start + known;
    if (start.startsWith(" ")) return line; // below a blank are the user's own texts
    const [name, ...rest] = text.split(": "), purpose = this.match(this.phrases, rest.join(": "), 0);
    if (purpose !== null) return `${start}${name}: ${purpose}`;
    // Remarks that stand in one line, one after the other.
    return text.endsWith(".") ? `${start}${this.part(text.slice(0, -1), 0)}.` : line;
  }

  /** What was put into a sentence: a name or a number stays, a phrase of ours is translated, each of a list by itself. */
  part(text, depth) {
    const each = (mark) => text.split(mark).map((one) => this.part(one, depth + 1)).join(mark);
    if (depth > DEEPEST) return text;
    if (text.includes("; ")) return each("; ");
    return this.match(this.phrases, text, depth) ?? (text.includes(", ") ? each(", ") : text);
  }

  match(patterns, text, depth) {
    for (const { pieces, translation } of patterns) {
      const values = valuesBetween(pieces, text);
      if (values) return translation.replace(/\{(\d+)\}/g, (whole, n) => this.part(values[n] ?? whole, depth + 1));
    }
    return null;
  }
}

// The more of it is fixed, the surer it is meant; a colon divides a line before all else.
function patternsOf(texts) {
  const fixed = ({ pieces }) => pieces.join("").length + (pieces.some((piece) => piece.includes(": ")) ? 2 : 0);
  return Object.entries(texts)
    .map(([english, translation]) => ({ pieces: english.split(/\{\d+\}/), translation }))
    .sort((one, other) => fixed(other) - fixed(one));
}

/**
 * Each piece is taken at the first place where it stands, so that a stranger's text cannot make it slow.
 * @returns {?string[]} what stands between the pieces; null where they are not in the text, from its start to its end
 */
function valuesBetween(pieces, text) {
  const last = pieces.at(-1), values = [];
  if (pieces.length === 1) return text === last ? values : null;
  if (!text.startsWith(pieces[0])) return null;
  let place = pieces[0].length;
  for (const piece of pieces.slice(1, -1)) {
    const next = text.indexOf(piece, place + 1);
    if (next < 0) return null;
    values.push(text.slice(place, next));
    place = next + piece.length;
  }
  // A first line that is too long loses its end: the last value is cut, and the full stop is gone.
  const cut = last === "." && text.endsWith("…"), end = cut ? text.length : text.length - last.length;
  if (end <= place || !(cut || text.endsWith(last))) return null;
  return [...values, text.slice(place, end)];
}

function pageCatalogue() {
  const language = languageName();
  if (!catalogues.has(language)) fetchCatalogue(language);
  return catalogues.get(language) ?? null;
}

function fetchCatalogue(language) {
  if (language === "en" || catalogues.has(language)) return Promise.resolve();
  if (!fetches.has(language)) fetches.set(language, readCatalogue(language).finally(() => fetches.delete(language)));
  return fetches.get(language);
}

async function readCatalogue(language) {
  try {
    const answer = await fetch(new URL(`../sentences/${language}.json`, import.meta.url));
    if (!answer.ok) throw new Error(`sentences/${language}.json: ${answer.status}`);
    catalogues.set(language, new Catalogue(await answer.json()));
    for (const listener of listeners) listener();
  } catch (error) {
    console.warn("Q-Sched: reports stay in English.", error);
  }
}
