// Finding nodes by the ids that the server uses.
import { app } from "../../../scripts/app.js";

/** The graph at the top, whichever subgraph is open. */
export function rootGraph() {
  const graph = app.rootGraph ?? app.graph;
  return graph?.rootGraph ?? graph;
}

/**
 * Every node with its id as the server knows it: "6", or "6:2" for node 2 inside subgraph node 6.
 * @returns {Generator<[string, object, object]>} (id, node, the graph it is in)
 */
export function* allNodes(graph = rootGraph(), prefix = "", depth = 0) {
  for (const node of graph?.nodes ?? []) {
    yield [`${prefix}${node.id}`, node, graph];
    if (node.subgraph && depth < 32) yield* allNodes(node.subgraph, `${prefix}${node.id}:`, depth + 1);
  }
}

/** Whether a node is in the workflow on the page: an answer may come when its tab was left. */
export function isOnPage(node) {
  for (const [, one] of allNodes()) if (one === node) return true;
  return false;
}

/** @param {string} id as the server knows it */
export function nodeById(id) {
  for (const [found, node] of allNodes()) if (found === id) return node;
  return null;
}

/** What a node showed last. The host keys it by either id, depending on its version. */
export function lastOutput(id, node, graph) {
  const outputs = app.nodeOutputs ?? {};
  return outputs[id] ?? outputs[`${graph.id}:${node.id}`] ?? null;
}
