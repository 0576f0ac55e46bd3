// How the preset tab looks, in whatever palette is on the page.
import { addStyle } from "./style.js";

/** To be called once. */
export function addLibraryStyles() {
  addStyle(`
    .qsched-library { box-sizing: border-box; display: flex; flex-direction: column; gap: 8px; height: 100%; padding: 10px;
      overflow-y: auto; color: var(--input-text, #ddd); font: 12px/1.4 Inter, Arial, sans-serif; }
    .qsched-library p, .qsched-library h3 { margin: 0; overflow-wrap: anywhere; }
    .qsched-library h3 { font-size: 13px; font-weight: 600; }
    .qsched-library input:not([type=checkbox]) { box-sizing: border-box; width: 100%; padding: 6px 8px; border-radius: 6px;
      border: 1px solid var(--border-color, #4e4e4e); background: var(--comfy-input-bg, #222); color: inherit; }
    .qsched-library button { padding: 3px 8px; border-radius: 6px; border: 1px solid var(--border-color, #4e4e4e);
      background: var(--comfy-input-bg, #222); color: inherit; cursor: pointer; font: inherit; }
    .qsched-library button:hover, .qsched-library button:focus-visible { border-color: currentColor; }
    .qsched-bar, .qsched-bar label { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; }
    .qsched-bar { justify-content: space-between; }
    .qsched-buttons { display: flex; flex-wrap: wrap; gap: 6px; }
    .qsched-notice { white-space: pre-line; }
    .qsched-notice:empty { display: none; }
    .qsched-cards { display: flex; flex-direction: column; gap: 8px; }
    .qsched-card { display: flex; flex-direction: column; gap: 6px; padding: 8px; border-radius: 8px;
      border: 1px solid var(--border-color, #4e4e4e); background: var(--comfy-menu-bg, #2b2b2b); }
    .qsched-card-top { display: flex; gap: 8px; }
    .qsched-card-body { flex: 1; min-width: 0; }
    .qsched-card img { width: 88px; height: 88px; object-fit: contain; border-radius: 6px; background: #8883; }
    .qsched-file, .qsched-said { color: var(--descrip-text, #999); }
    .qsched-said { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
    .qsched-file { font-size: 11px; }
    .qsched-match > p:first-child::before { content: "● "; }
    .qsched-good { color: color-mix(in srgb, #1a9a5c 75%, var(--input-text, #ddd)); }
    .qsched-bad { color: color-mix(in srgb, #d5502a 75%, var(--input-text, #ddd)); }
    .qsched-why { padding-left: 12px; }
    .qsched-rename { display: flex; flex-direction: column; gap: 6px; }`);
}
