// Colours for drawing, taken from whatever palette is on the page.

// From the worst through none to the best. On dark paper the best shines, on light paper it is dark.
const DARK = [[205, 92, 20], [160, 76, 26], [112, 70, 46], [92, 94, 100], [40, 102, 152], [24, 150, 225], [150, 225, 255]];
const LIGHT = [[140, 54, 0], [213, 94, 0], [247, 186, 132], [238, 238, 238], [143, 197, 232], [0, 114, 178], [0, 58, 108]];

/**
 * The theme of an element that has a colour and a background.
 * @param {HTMLElement} element
 * @returns {{paper: string, ink: string, faint: string, grid: string, gain: string, loss: string, scale: number[][]}}
 *   `scale` runs from the worst over none, in the middle, to the best.
 */
export function readTheme(element) {
  const style = getComputedStyle(element);
  const paper = rgb(style.backgroundColor, [34, 34, 34]);
  const ink = rgb(style.color, [221, 221, 221]);
  const dark = luminance(paper) < luminance(ink);
  return {
    paper: css(paper),
    ink: css(ink),
    faint: css(mix(ink, paper, 0.42)),
    grid: css(mix(ink, paper, 0.86)),
    gain: dark ? "rgb(86, 180, 233)" : "rgb(0, 114, 178)",
    loss: dark ? "rgb(240, 140, 60)" : "rgb(213, 94, 0)",
    scale: dark ? DARK : LIGHT,
  };
}

/**
 * @param {number[][]} scale
 * @param {number} share from -1 (worst) to 1 (best); beyond is cut
 * @returns {string}
 */
export function onScale(scale, share) {
  const place = ((1 + Math.min(1, Math.max(-1, share))) / 2) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  return css(mix(scale[low], scale[low + 1], place - low));
}

// Any CSS colour, oklch() too: the browser knows them all.
function rgb(colour, fallback) {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  pixel.fillStyle = colour;
  pixel.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
  return alpha < 128 ? fallback : [red, green, blue];
}

const luminance = ([red, green, blue]) => 0.3 * red + 0.6 * green + 0.1 * blue;
const mix = (from, to, share) => from.map((value, i) => Math.round(value + share * (to[i] - value)));
const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;
