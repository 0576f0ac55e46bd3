// One preset as a card. Everything in it may come from a stranger's file: text is set as text, pictures are checked.
import { translatedError } from "../shared/sentences.js";
import { text } from "../shared/texts.js";

const PICTURE = /^data:image\/jpeg;base64,[A-Za-z0-9+/]+={0,2}$/;
const MOST = 300_000;

/**
 * @typedef {object} Preset an entry of the server's list with its `match`; one with `error` has only that and its name
 * @typedef {{fits: ?boolean, differs: object[], unknown: string[]}} Match
 */

/**
 * @param {Preset} preset
 * @param {{insert: Function, rename: Function, share: Function, delete: Function}} actions each called with the preset
 * @returns {HTMLElement}
 */
export function makeCard(preset, actions) {
  const { match } = preset;
  const card = element("article", "qsched-card");
  card.dataset.name = preset.name;
  if (preset.error) {
    card.append(element("h3", "", preset.name), element("p", "qsched-bad", translatedError(preset.error)));
    const both = [["rename", () => actions.rename(preset)], ["delete", () => actions.delete(preset)]];
    card.append(buttons(preset.shipped ? [] : both));
    return card;
  }
  card.dataset.fits = String(match?.fits ?? null);
  const body = element("div", "qsched-card-body");
  body.append(element("h3", "", preset.title), element("p", "qsched-file", preset.name));
  body.append(element("p", "", [preset.model || text("any model"), preset.quantization].filter(Boolean).join(" · ")));
  body.append(element("p", "", samplingOf(preset)));
  body.append(element("p", "qsched-gain", gainOf(preset)));
  const top = element("div", "qsched-card-top");
  const picture = pictureOf(preset);
  top.append(...(picture ? [picture, body] : [body]));
  card.append(top, matchOf(match));
  if (preset.description) card.append(element("p", "qsched-said", preset.description));
  const by = [preset.author, preset.license, preset.shipped ? text("shipped") : ""].filter(Boolean).join(" · ");
  if (by) card.append(element("p", "qsched-file", by));
  card.append(
    buttons([
      ["insert", () => actions.insert(preset)],
      ...(preset.shipped ? [] : [["rename", () => actions.rename(preset)]]),
      ["share", () => actions.share(preset)],
      ...(preset.shipped ? [] : [["delete", () => actions.delete(preset)]]),
    ]),
  );
  return card;
}

/** An element with text, and nothing but text, in it. */
export function element(tag, className = "", content = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

/** A row of buttons: pairs of a text's key and what happens. */
export function buttons(pairs) {
  const row = element("div", "qsched-buttons");
  for (const [key, action] of pairs) {
    const button = element("button", "", text(key));
    button.type = "button";
    button.dataset.action = key;
    button.addEventListener("click", action);
    row.append(button);
  }
  return row;
}

function samplingOf({ steps, sampler, scheduler, cfg }) {
  const names = [sampler, scheduler].filter(Boolean).join(" / ");
  return [text("steps", { count: steps }), names, cfg ? `cfg ${cfg}` : ""].filter(Boolean).join(" · ");
}

function gainOf({ gain, verdict }) {
  if (!gain) return text(verdict);
  const [middle, low, high] = [gain.gain, gain.low, gain.high].map((value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`);
  return `JAQ ${middle} [${low}, ${high}] · ${text(verdict)}`;
}

function pictureOf({ thumbnail, title }) {
  if (typeof thumbnail !== "string" || thumbnail.length > MOST || !PICTURE.test(thumbnail)) return null;
  const picture = element("img");
  picture.alt = title;
  picture.src = thumbnail;
  return picture;
}

function matchOf(match) {
  const part = element("div", "qsched-match");
  if (!match) return part;
  const names = match.unknown.map((what) => text(`part ${what}`)).join(", ");
  if (match.fits === true) {
    part.append(element("p", "qsched-good", text("fits")));
    if (names) part.append(element("p", "qsched-file", text("known later", { names })));
  } else if (match.fits === false) {
    part.append(element("p", "qsched-bad", text("differs")));
    for (const { what, preset, here } of match.differs) {
      part.append(element("p", "qsched-why", text("difference", { what: text(`part ${what}`), preset, here })));
    }
  } else {
    part.append(element("p", "qsched-open", text("known later", { names })));
  }
  return part;
}
