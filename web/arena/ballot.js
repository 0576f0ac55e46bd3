// A blind vote as the server tells it. The answer is taken as a stranger's: only known words and numbers get through.

const KEY = /^[0-9a-f]{64}$/, FILE = /^[0-9a-f]{32}\.png$/;
const MOST_PAIRS = 200, MOST_TEXT = 300;
const SIDES = ["left", "right"], CHOICES = [...SIDES, "skip"];
const VERDICTS = ["better", "worse", "no difference seen", "too few votes"];

/** @returns {string} a ballot's key, or "" */
export const readKey = (value) => (typeof value === "string" && KEY.test(value) ? value : "");

/**
 * @typedef {object} Ballot
 * @property {(?string)[]} votes per pair: "left", "right", "skip" or null
 * @property {?number} last the pair that was voted on last
 * @property {boolean} closed
 * @property {string[][]} pictures file names, [left, right] per pair; empty where they are gone
 * @property {string[]} texts one per pair, or none
 * @property {?string[]} sides where the preset is, once it is closed
 * @property {?object} result wins, losses, skips, share, low, high, verdict, once it is closed
 *
 * @param {object} told
 * @returns {?Ballot} null where it is none
 */
export function readBallot(told) {
  const count = told?.pairs;
  if (!Number.isInteger(count) || count < 1 || count > MOST_PAIRS) return null;
  const votes = list(told.votes, count, (vote) => vote === null || CHOICES.includes(vote));
  if (!votes.length) return null;
  const result = told.closed === true ? readResult(told.result) : null;
  return {
    votes,
    last: Number.isInteger(told.last) && told.last >= 0 && told.last < count ? told.last : null,
    closed: result !== null,
    pictures: list(told.pictures, count, (pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isFile)),
    texts: list(told.texts, count, (text) => typeof text === "string").map((text) => text.slice(0, MOST_TEXT)),
    sides: result && list(told.sides, count, (side) => SIDES.includes(side)),
    result,
  };
}

function readResult(told) {
  const counts = ["wins", "losses", "skips"].map((name) => told?.[name]);
  const shares = ["low", "high"].map((name) => told?.[name]);
  if (!counts.every((value) => Number.isInteger(value) && value >= 0 && value <= MOST_PAIRS)) return null;
  if (!shares.every((value) => typeof value === "number" && value >= 0 && value <= 1)) return null;
  if (!VERDICTS.includes(told.verdict)) return null;
  const [[wins, losses, skips], [low, high]] = [counts, shares];
  return { wins, losses, skips, low, high, verdict: told.verdict };
}

const isFile = (name) => typeof name === "string" && FILE.test(name);

// All of it or nothing.
const list = (values, count, good) =>
  Array.isArray(values) && values.length === count && values.every(good) ? values : [];
