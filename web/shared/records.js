// What a calibration has found so far, out of the server's events, its history or a finished report. All of it may
// come from a stranger's workflow: only numbers and known names get through.

const MOST = 2000, LONGEST = 400;
const REASONS = ["none", "noise", "worse", "broken", "retuning", "drift"], CHOICES = ["resample", "use as is", "refuse"];
const FOLDERS = ["temp", "output", "input"]; // of the host
const AXIS = /^c_(x|eps)(_(first|last|[1-9]\d{0,3}))?$/;

/**
 * One search.
 * @typedef {object} Study
 * @property {string} run names its inputs
 * @property {string} phase "reference", "search", "verdict" or "done"
 * @property {number} count trials so far; `points` are the last of them
 * @property {Point[]} points in the order they were asked for
 * @property {?number} identity JAQ without Q-Sched
 * @property {number} radius half-width of the trust region around 1
 * @property {?{c_x: number[], c_eps: number[], jaq: ?number}} best
 *
 * @typedef {{axes: Object<string, number>, jaq: ?number, whole: boolean}} Point
 */

/**
 * @param {object} told an event, or an entry of the history's `studies`
 * @returns {Study}
 */
export function readStudy(told) {
  const points = list(told?.points).slice(-MOST).map((point) => readPoint(point?.point, point?.jaq, point?.whole));
  return {
    run: String(told?.run ?? ""),
    phase: ["reference", "verdict"].includes(told?.phase) ? told.phase : "search",
    count: Math.max(points.length, number(told?.count) ?? 0),
    points,
    identity: number(told?.identity),
    radius: readRadius(told?.radius),
    best: readBest(told?.best, told?.best?.jaq),
  };
}

/**
 * Adds an event to what is known.
 * @param {?Study} study
 * @param {object} event
 * @returns {?Study} null where something was missed and the history has to be asked
 */
export function advance(study, event) {
  const next = readStudy(event);
  const added = event?.trial ? [readPoint(event.trial.point, event.trial.jaq, event.trial.whole)] : [];
  const known = study?.run === next.run ? study : { count: 0, points: [] };
  if (known.count + added.length !== next.count) return null;
  return { ...next, points: [...known.points, ...added].slice(-MOST) };
}

/**
 * @param {string} text a node's `qsched_report`
 * @returns {?Study} null where it is none
 */
export function readReport(text) {
  const report = parse(text);
  if (!Array.isArray(report?.trace)) return null;
  const points = report.trace.slice(0, MOST).map((point) => readPoint(point, point?.jaq, point?.whole));
  const whole = points.filter((point) => point.whole && point.jaq !== null);
  return {
    run: "",
    phase: "done",
    count: report.trace.length,
    points,
    identity: points[0]?.jaq ?? null,
    radius: readRadius(report.radius),
    best: readBest(report.coefficients, whole.length ? Math.max(...whole.map((point) => point.jaq)) : null),
  };
}

/** As far as calibration/settings.py lets it be; 0.2, its default with a reference, where none is told. */
function readRadius(told) {
  const radius = number(told);
  return radius > 0 && radius <= 0.5 ? radius : 0.2;
}

/**
 * @param {object} told an entry of a node's `qsched_curve`
 * @returns {?{c_x: number[], c_eps: number[], sigmas: number[]}}
 */
export function readCurve(told) {
  const curve = readBest(told, null);
  if (!curve) return curve;
  const steps = curve.c_x.length;
  const whole = (values, fits) => {
    const numbers = list(values).slice(0, 1001).map(number);
    return numbers.length === steps && numbers.every(fits) ? numbers : [];
  };
  return {
    c_x: curve.c_x,
    c_eps: curve.c_eps,
    sigmas: list(told.sigmas).slice(0, 1001).map(number),
    bits: whole(told.bits, (value) => [4, 8, 16].includes(value)),
    models: whole(told.models, (value) => Number.isInteger(value) && value >= 0 && value < 8),
  };
}

/**
 * @param {unknown} report a node's `qsched_report`
 * @returns {?{accepted: boolean, retuned: boolean, why: string, gain: ?number, low: ?number, high: ?number}} null where it is none;
 *   `why` the identity is recommended is one of REASONS
 */
export function readVerdict(report) {
  const verdict = parse(report);
  if (typeof verdict?.accepted !== "boolean") return null;
  const { gain, low, high } = verdict.gains?.jaq ?? {};
  const why = REASONS.includes(verdict["why not"]) ? verdict["why not"] : "noise";
  const retuned = verdict.answer === "re-tuning";
  return { accepted: verdict.accepted, retuned, why, gain: number(gain), low: number(low), high: number(high) };
}

/**
 * @param {unknown} note an event's or the server's
 * @returns {?object} {kind: "stopped", count, total} or {kind: "differs", choice, differences: {what, preset, here}[]}
 */
export function readNote(note) {
  if (note?.kind === "stopped") return { kind: "stopped", count: number(note.count) ?? 0, total: number(note.total) ?? 0 };
  const differences = list(note?.differences).slice(0, 20).map((item) => ({
    what: words(item?.what), preset: words(item?.preset), here: words(item?.here),
  }));
  if (note?.kind !== "differs" || !differences.length) return null;
  return { kind: "differs", choice: CHOICES.includes(note.choice) ? note.choice : CHOICES[0], differences };
}

/**
 * @param {unknown} pictures a node's `qsched_pictures`
 * @returns {?{rows: {name: string, files: object[]}[], texts: string[]}} null where there are not two rows to compare
 */
export function readPictures(pictures) {
  const rows = list(pictures?.rows).slice(0, 8).map((row) => ({
    name: words(row?.name), files: list(row?.files).slice(0, 64).map(readFile).filter(Boolean),
  }));
  if (rows.length < 2 || rows.some((row) => !row.files.length)) return null;
  return { rows, texts: list(pictures.texts).slice(0, 64).map(words) };
}

/** @returns {?{before: string, after: string}} addresses of two pictures that an event carried */
export function readLivePair(pair) {
  const pictures = [pair?.before, pair?.after];
  if (!pictures.every((uri) => typeof uri === "string" && uri.startsWith("data:image/jpeg;base64,"))) return null;
  return { before: pair.before, after: pair.after };
}

function readFile(file) {
  const [filename, subfolder, type] = [words(file?.filename), words(file?.subfolder), words(file?.type)];
  return filename && FOLDERS.includes(type) ? { filename, subfolder, type } : null;
}

function readPoint(axes, jaq, whole) {
  const known = Object.entries(axes ?? {}).filter(([axis, value]) => AXIS.test(axis) && number(value) !== null);
  return { axes: Object.fromEntries(known.slice(0, 2000)), jaq: number(jaq), whole: whole !== false };
}

function readBest(told, jaq) {
  const [c_x, c_eps] = [told?.c_x, told?.c_eps].map((values) => list(values).slice(0, 1000).map(number));
  if (!c_x.length || c_x.length !== c_eps.length || [...c_x, ...c_eps].includes(null)) return null;
  return { c_x, c_eps, jaq: number(jaq) };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const words = (value) => (typeof value === "string" ? value.slice(0, LONGEST) : "");
const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
