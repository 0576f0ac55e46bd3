// From JAQ values to gains over the identity, and to the unit of their colours. As in calibration/plots/gains.py:
// tests/golden/gains.json holds both to it.

/**
 * @param {import("../shared/records.js").Study} study
 * @returns {(?number)[]} one per point; null where it could not be scored
 */
export function gainsOf(study) {
  const scored = study.points.map((point) => point.jaq).filter((jaq) => jaq !== null);
  // An identity that could not be scored: the candidates are compared with each other.
  const zero = study.identity ?? median(scored) ?? 0;
  return study.points.map((point) => (point.jaq === null ? null : point.jaq - zero));
}

/** The best gain, or where there is none half of a usual loss; 0 if all are equal. */
export function unitOf(gains) {
  const scored = gains.filter((gain) => gain !== null);
  const best = Math.max(0, ...scored);
  if (best > 0) return best;
  return -(median(scored.filter((gain) => gain < 0)) ?? 0) / 2;
}

/** From -1, two units lost or more, over 0 to 1, one unit gained. */
export function shareOf(gain, unit) {
  if (unit === 0) return 0;
  return Math.min(1, Math.max(-1, gain > 0 ? gain / unit : gain / (2 * unit)));
}

/** The best gain of the first 1, 2, … points, of those that were tried on all prompts. */
export function bestSoFar(study, gains) {
  let best = null;
  return gains.map((gain, i) => {
    if (gain !== null && study.points[i].whole) best = Math.max(best ?? gain, gain);
    return best;
  });
}

/** @param {object} point of a study */
export const isIdentity = (point) => Object.values(point.axes).every((value) => value === 1);

/** "+0.0123" */
export function signed(value) {
  const digits = value === 0 ? 0 : Math.min(6, Math.max(2, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return (value > 0 ? "+" : "") + value.toFixed(digits).replace("-", "−");
}

/** "+0.11 [0.09, 0.13]", with as many digits as the interval's width allows to speak of. */
export function interval(gain, low, high) {
  const width = low === null || high === null ? Math.abs(gain) : high - low;
  const digits = width > 0 ? Math.min(6, Math.max(2, -Math.floor(Math.log10(width)))) : 2;
  const [middle, from, to] = [gain, low, high].map((value) => value?.toFixed(digits).replace("-", "−") ?? "?");
  return `${gain > 0 ? "+" : ""}${middle} [${from}, ${to}]`;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return sorted.length ? (sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2 : null;
}
