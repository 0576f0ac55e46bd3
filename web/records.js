// What a calibration has found so far, out of the server's events, its history or a finished report. All of it may
// come from a stranger's workflow: only numbers and known names get through.

const MOST = 2000;
const AXIS = /^c_(x|eps)(_(first|last|[1-9]\d{0,3}))?$/;

/**
 * One search.
 * @typedef {object} Study
 * @property {string} run names its inputs
 * @property {string} phase "search", "verdict" or "done"
 * @property {number} count trials so far; `points` are the last of them
 * @property {Point[]} points in the order they were asked for
 * @property {?number} identity JAQ without Q-Sched
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
    phase: told?.phase === "verdict" ? "verdict" : "search",
    count: Math.max(points.length, number(told?.count) ?? 0),
    points,
    identity: number(told?.identity),
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
  let report;
  try {
    report = JSON.parse(text);
  } catch {
    return null;
  }
  if (!Array.isArray(report?.trace)) return null;
  const points = report.trace.slice(0, MOST).map((point) => readPoint(point, point?.jaq, point?.whole));
  const whole = points.filter((point) => point.whole && point.jaq !== null);
  return {
    run: "",
    phase: "done",
    count: report.trace.length,
    points,
    identity: points[0]?.jaq ?? null,
    best: readBest(report.coefficients, whole.length ? Math.max(...whole.map((point) => point.jaq)) : null),
  };
}

/**
 * @param {object} told an entry of a node's `qsched_curve`
 * @returns {?{c_x: number[], c_eps: number[], sigmas: number[]}}
 */
export function readCurve(told) {
  const curve = readBest(told, null);
  return curve && { c_x: curve.c_x, c_eps: curve.c_eps, sigmas: list(told.sigmas).slice(0, 1001).map(number) };
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

const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
