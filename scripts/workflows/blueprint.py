"""The blueprint "Q-Sched quick start": one node that quantises a model and samples it with a preset."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import EULER, PLAIN, W4A8

NAME = "Q-Sched quick start"

_SAMPLER = {"model": [1, 0], "positive": [2, 0], "negative": [3, 0], "latent_image": [4, 0]}
_ROW = (
    Node(1, "QSchedQuantizeModel", "Quantize", W4A8, size=(320, 330)),
    Node(2, "CLIPTextEncode", "Prompt", {"text": ""}, size=(320, 140)),
    Node(3, "ConditioningZeroOut", "No negative prompt", {"conditioning": [2, 0]}),
    Node(4, "EmptySD3LatentImage", "Picture size", {"width": 1024, "height": 1024, "batch_size": 1}),
    Node(5, "QSchedSampler", "Sample", {**_SAMPLER, "seed": 0, **EULER, **PLAIN}),
    Node(6, "VAEDecode", "Decode", {"samples": [5, 0]}),
)
BLUEPRINT = Template(NAME, (0, 0), ((Group("", (_ROW,)),),))

# A blueprint is a workflow that holds one subgraph node. What is exposed: [inner node, its input, the name shown].
BUILD_BLUEPRINT = """({ name, kinds }) => {
  const SOCKETS = [[1, "model"], [2, "clip"], [6, "vae"], [5, "preset"]];
  const WIDGETS = [[2, "text", "prompt"], [1, "format"], [4, "width"], [4, "height"], [5, "seed"], [5, "steps"],
    [5, "cfg"], [5, "sampler_name"], [5, "scheduler"], [5, "strength"]];
  app.graph.remove(app.graph.getNodeById(100));
  let x = 0;
  for (const id of [1, 2, 3, 4, 5, 6]) {
    const node = app.graph.getNodeById(id);
    node.pos = [x, 0];
    x += node.size[0] + 60;
  }
  const { subgraph, node } = app.graph.convertToSubgraph(new Set(app.graph.nodes));
  subgraph.name = node.title = name;
  for (const [id, socket, shown] of [...SOCKETS, ...WIDGETS]) {
    const inner = subgraph.nodes.find(n => n.type === kinds[id]), slot = inner.findInputSlot(socket);
    if (slot < 0) throw new Error(`${inner.title} has no input ${socket}`);
    subgraph.addInput(shown ?? socket, inner.inputs[slot].type).connect(inner.inputs[slot], inner);
  }
  // The page has exposed a prompt and a seed of its own accord; ours have taken their links.
  for (const input of [...subgraph.inputs]) if (!input.linkIds.length) subgraph.removeInput(input);
  const decode = subgraph.nodes.find(n => n.type === "VAEDecode");
  subgraph.addOutput("picture", "IMAGE").connect(decode.outputs[0], decode);
  subgraph.inputNode.pos = [-260, 0];
  subgraph.outputNode.pos = [x, 0];
  node.setSize([360, node.computeSize()[1]]);
  node.pos = [0, 0];
  const saved = app.graph.serialize();
  saved.definitions.subgraphs[0].category = "Q-Sched";
  saved.extra = {
    ...saved.extra,
    BlueprintDescription: "Quantises a model to W4A8 while it is loaded, and samples it with a Q-Sched preset: "
      + "model, clip and vae in, picture out. Without a preset it samples plainly.",
    BlueprintSearchAliases: ["q-sched", "quantize", "int4", "w4a8", "few steps", "turbo", "preset", "quick start"],
  };
  return saved;
}"""
EXPOSED = {"name": NAME, "kinds": {node.id: node.kind for node in _ROW}}
