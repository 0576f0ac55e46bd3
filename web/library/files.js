// Preset files that are dropped: which they are, told from their first bytes alone.

/** What the server takes. */
export const MOST_FILE = 4 * 1024 ** 2;

const SUFFIX = ".safetensors", PICTURE = /\.png$/i, SHARED = /\.qsched ?(\(\d+\))?\.png$/i;
const FORMAT = "qsched-preset", CARRIED = "qsched_preset", RECIPE = ["workflow", "prompt"];
const MOST_HEADER = 1024 ** 2;
const latin1 = new TextDecoder("latin1"); // a PNG's names

/** Whether a file's name is one that a preset may have on our tab: its own, or a picture's that carries it. */
export function mayBePreset({ name, size }) {
  return (name.toLowerCase().endsWith(SUFFIX) || PICTURE.test(name)) && size <= MOST_FILE;
}

/** The same for the canvas, where any other picture is the host's business. */
export function mayBePresetOnCanvas(file) {
  return mayBePreset(file) && (!PICTURE.test(file.name) || SHARED.test(file.name));
}

/**
 * Whether a file is a preset, or a picture that carries one, and holds no workflow that the host could open.
 * @param {File} file
 */
export async function isPlainPreset(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const names = bytes[0] === 0x89 ? textsOfPicture(bytes) : namesInHeader(bytes);
  return names.has(CARRIED) && !RECIPE.some((name) => names.has(name));
}

function namesInHeader(bytes) {
  if (bytes.length < 8) return new Set();
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  if (length > MOST_HEADER || length > bytes.length - 8) return new Set();
  try {
    const metadata = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)))?.__metadata__ ?? {};
    return new Set([...Object.keys(metadata), ...(metadata.format === FORMAT ? [CARRIED] : [])]);
  } catch {
    return new Set();
  }
}

// The keywords of a PNG's tEXt parts.
function textsOfPicture(bytes) {
  const view = new DataView(bytes.buffer), names = new Set();
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const kind = latin1.decode(bytes.subarray(at + 4, at + 8));
    if (kind !== "tEXt") continue;
    const data = bytes.subarray(at + 8, at + 8 + 80), end = data.indexOf(0);
    if (end > 0) names.add(latin1.decode(data.subarray(0, end)));
  }
  return names;
}
