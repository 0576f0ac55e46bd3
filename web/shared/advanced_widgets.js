// Advanced widgets on the classic canvas: it can hide them, but the host tells it neither which they are nor that what
// is hidden takes no place.

import { app } from "../../../scripts/app.js";

const OURS = /^QSched/, ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets";

/** To be called for every node that is made. "Show Advanced" in the node's menu brings them back. */
export function foldAdvanced(node) {
  if (!OURS.test(node.comfyClass ?? "") || typeof node.getLayoutWidgets !== "function") return;
  const advanced = (node.widgets ?? []).filter((widget) => widget.options?.advanced);
  if (!advanced.length || app.extensionManager?.setting?.get(ALWAYS)) return;
  for (const widget of advanced) widget.advanced = true;
  const { getLayoutWidgets } = node;
  node.getLayoutWidgets = function () {
    return getLayoutWidgets.call(this).filter((widget) => !widget.advanced || this.showAdvanced);
  };
  node.setSize([node.size[0], node.computeSize()[1]]);
}
