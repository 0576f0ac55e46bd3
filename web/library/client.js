// The server's answers about presets; each rejects with a text for a person.
import { api } from "../../../scripts/api.js";
import { PAGE_HEADER } from "../shared/page_header.js";
import { translatedError, whenTranslated } from "../shared/sentences.js";
import { text } from "../shared/texts.js";

/** @param {string} path behind /qsched/presets @returns {Promise<object>} */
export async function post(path, question) {
  const headers = { ...PAGE_HEADER, "Content-Type": "application/json" };
  return (await fetchPresets(path, { method: "POST", headers, body: JSON.stringify(question) })).json();
}

/** @returns {Promise<{name: string, added: boolean}>} the name it is listed under, and whether it is new */
export async function importFile(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  return (await fetchPresets("/import", { method: "POST", headers: PAGE_HEADER, body: form })).json();
}

/** @returns {Promise<Blob>} a PNG that carries the preset */
export async function pictureOf(name) {
  return (await fetchPresets(`/picture?name=${encodeURIComponent(name)}`)).blob();
}

async function fetchPresets(path, options) {
  let answer;
  try {
    answer = await api.fetchApi(`/qsched/presets${path}`, options);
  } catch {
    throw new Error(text("no server"));
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  await whenTranslated();
  throw new Error(typeof error === "string" ? translatedError(error) : `${text("no server")} (${answer.status})`);
}
