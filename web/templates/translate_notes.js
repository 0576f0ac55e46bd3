// The notes of our example workflows in the page's language. A workflow file holds them in English.
import { languageName } from "../shared/texts.js";

const LANGUAGES = ["en", "zh", "ja", "ko", "fr"], KEY = "qsched_note";
const files = new Map(); // by name, what was fetched

/**
 * Notes that still say what one of our languages says are said in the page's language.
 * @param {object} workflow as it was loaded, before the nodes are made of it
 */
export async function translateNotes(workflow) {
  const nodes = Array.isArray(workflow?.nodes) ? workflow.nodes : [];
  const notes = nodes.filter((node) => typeof node?.properties?.[KEY] === "string");
  if (!notes.length) return;
  const language = languageName();
  try {
    const texts = Object.fromEntries(await Promise.all(LANGUAGES.map(async (name) => [name, await load(name)])));
    const parts = await load("parts");
    for (const node of notes) {
      const key = node.properties[KEY], said = node.widgets_values?.[0];
      const known = LANGUAGES.some((name) => noteText(texts[name], parts, key) === said);
      const wanted = noteText(texts[language], parts, key);
      if (known && wanted) node.widgets_values = [wanted, ...node.widgets_values.slice(1)];
    }
  } catch (error) {
    console.warn("Q-Sched: the notes stay in English.", error);
  }
}

/** @returns {?string} a note as one text: lines, with {parts} put in that all languages or several notes share */
export function noteText(texts, parts, key) {
  if (!Object.hasOwn(texts, key)) return null;
  const known = { ...texts, ...parts }, joined = texts[key].join("\n");
  return joined.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(known, name) ? known[name].join("\n") : whole));
}

async function load(name) {
  if (!files.has(name)) {
    const answer = await fetch(new URL(`../notes/${name}.json`, import.meta.url));
    if (!answer.ok) throw new Error(`notes/${name}.json: ${answer.status}`);
    files.set(name, await answer.json());
  }
  return files.get(name);
}
