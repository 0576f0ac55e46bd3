"""How far packed layers are from float ones, ours and others' on the same tensors: ``python -m benchmarks.error``.

Trained layers: the demo model's (a toy that we trained), on inputs recorded while it draws. Random layers: normal and
heavy-tailed weights, inputs with a few loud channels as transformers have them. Each figure is a relative L2 error,
the mean over layers; *bits* count everything that is stored with a weight. ComfyUI's native layouts come from the
comfy-kitchen of the ComfyUI at hand; optimum-quanto, torchao and llm-compressor (benchmarks/requirements.txt) take part
where they are installed.

Fitted rounding, ours and llm-compressor's GPTQ, sees inputs of other captions than those that judge. Random inputs know
nothing of each other: there it has nothing to fit to, and is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from calibration.prompt_files import read_lines

from .in_host import ROOT, import_host, import_pack
from .record import record

CAPTIONS, STEPS, TOKENS = 4, 4, 256
FIT_CAPTIONS, FIT_TOKENS = 12, 4096
CPU = torch.device("cpu")
OURS = [
    ("w8a8", 0, True), ("w6a8", 32, True), ("w4a8", 16, True), ("w4a8", 32, True), ("w4a8", 32, False),
    ("w4a8", 64, True), ("w4a8", 128, True), ("w4a8", 0, True), ("w4a4", 32, True), ("w4a4", 0, True),
    ("w4a16", 32, True), ("w4a16", 64, False), ("w4a16", 128, True), ("w4a16", 128, False), ("w8a16", 0, True),
    ("w3a8", 32, True),
]  # fmt: skip
KITCHEN = [("w8a8", None), ("w4a8", 16), ("w4a8", 32), ("w4a8", 64), ("w4a4", None)]
QUANTO = [("w4a16", 32), ("w4a16", 64), ("w4a16", 128), ("w8a16", 0)]
FITTED = [("w4a16", 32), ("w4a8", 32), ("w4a8", 0), ("w4a4", 32), ("w3a8", 32)]
LLM_COMPRESSOR = [("w4a16", 32), ("w4a8", 32), ("w4a8", 0), ("w3a8", 32)]

Layer = tuple[nn.Linear, Tensor, Tensor | None]
"""(the layer, inputs that judge, inputs to fit to)"""
Packed = tuple[Callable[[Tensor], Tensor], Tensor, float]
"""(the layer, the float weight it stands for, bits per weight)"""


def trained_layers() -> Iterator[Layer]:
    """The demo model's Linear layers in its blocks, with inputs of real runs."""
    load = importlib.import_module
    node, conditioning, sampling = (
        load("pack.nodes.demo_model"),
        load("pack.nodes.host.conditioning"),
        load("pack.nodes.sampling.ksampler"),
    )
    full, clip, _ = node.QSchedDemoModel.execute().args
    texts = read_lines(Path(ROOT, "demo", "prompts.txt").read_text("utf-8")).texts[: CAPTIONS + FIT_CAPTIONS]
    network, inputs = full.model.diffusion_model, defaultdict(list)
    layers = {name: layer for name, layer in network.named_modules() if "blocks." in name and _wide(layer)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, name=name: inputs[name].append(x[0].flatten(0, -2).clone()))
        for name, layer in layers.items()
    ]
    latent = {"samples": torch.zeros(1, 16, 16, 16)}
    recipe = sampling.Recipe(STEPS, 1.0, "euler", "simple")
    for seed, text in enumerate(texts):
        encoded = conditioning.encode(clip, text)
        sampling.sample_latent(full, recipe, seed, encoded, encoded, latent)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        calls = CAPTIONS * len(inputs[name]) // len(texts)
        yield layer, _some(inputs[name][:calls], TOKENS), _some(inputs[name][calls:], FIT_TOKENS)


def _some(inputs: list[Tensor], count: int) -> Tensor:
    rows = torch.cat(inputs)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]]


def _wide(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.weight.numel() >= 4096


def random_layers() -> Iterator[Layer]:
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((1280, 1280), (1280, 640), (3072, 3072)):
        for tails in (False, True):
            layer = nn.Linear(columns, rows)
            weight = torch.randn(rows, columns, generator=generator)
            if tails:  # Student's t with 5 degrees of freedom, out of normals
                weight = weight / (torch.randn(rows, columns, 5, generator=generator).square().mean(-1).sqrt())
            layer.weight.data = 0.02 * weight
            x = torch.randn(TOKENS, columns, generator=generator)
            x[:, torch.randperm(columns, generator=generator)[: columns // 64]] *= 10
            yield layer, x, None


def methods() -> Iterator[tuple[str, Callable[[nn.Linear, Tensor | None], Packed]]]:
    load = importlib.import_module
    quant, inside = load("pack.qsched_core.quant"), load("pack.qsched_core.quant.inspection")
    backends = load("pack.qsched_core.quant.backends").default_backends()

    def through(backend, form) -> Callable[[nn.Linear], Packed]:
        def packed(layer: nn.Linear, fit: Tensor | None) -> Packed:
            if reason := backend.missing(form, CPU) or backend.refusal(layer, form, CPU):
                raise NotImplementedError(reason)
            twin = backend.twin(layer, layer.weight.data, layer.bias, form)
            bits = 8 * inside.stored_bytes(twin.weight) / layer.weight.numel()
            return twin, inside.packed_weight(twin), bits

        return packed

    for name, group, symmetric in OURS:
        form = quant.resolve_format(name, group, symmetric)
        yield f"ours {form}", through(backends["torch"], form)
    for name, group in KITCHEN:
        form = backends["kitchen"].form(name, group)
        yield f"comfy-kitchen {form}", through(backends["kitchen"], form)
    for name, group in QUANTO:
        for symmetric in (True, False):
            form = quant.resolve_format(name, group, symmetric)
            if not backends["quanto"].missing(form, CPU):
                yield f"quanto {form}", through(backends["quanto"], form)
    yield "torchao w8a8/channel", _torchao("w8a8", 0)
    for group in (32, 64, 128):
        yield f"torchao w4a8/g{group}", _torchao("w4a8", group)
    for name, group in FITTED:
        form = quant.resolve_format(name, group)
        yield f"ours fitted {form}", _fitted(backends["torch"], form)
    for name, group in LLM_COMPRESSOR:
        yield f"llm-compressor GPTQ {quant.resolve_format(name, group)}", _llm_compressor(name, group)


def _fitted(backend, form) -> Callable[[nn.Linear, Tensor | None], Packed]:
    load = importlib.import_module
    fitting, way = load("pack.qsched_core.quant.fitting"), load("pack.qsched_core.quant.backends").Way(backend, form)
    inside = load("pack.qsched_core.quant.inspection")

    def packed(layer: nn.Linear, fit: Tensor | None) -> Packed:
        fit = _some_to_fit(fit)
        cut = min(TOKENS, len(fit) // 4)  # by them our quantiser judges whether fitting was better
        rows, judges = fit[cut:], fit[:cut]
        twin, _ = fitting.fitted_twin(way, layer, layer.weight.data, layer.bias, rows, judges, rows.abs().amax(0))
        bits = 8 * inside.stored_bytes(twin.weight) / layer.weight.numel()
        return twin, inside.packed_weight(twin), bits

    return packed


def _some_to_fit(fit: Tensor | None) -> Tensor:
    if fit is None:
        raise NotImplementedError("random inputs know nothing of each other")
    return fit


def _llm_compressor(name: str, group: int) -> Callable[[nn.Linear, Tensor | None], Packed]:
    """Its own modifier from start to end, with its own defaults, on a network of one layer."""
    bits, activation_bits = (int(part) for part in name[1:].split("a"))

    def packed(layer: nn.Linear, fit: Tensor | None) -> Packed:
        fit = _some_to_fit(fit)
        try:
            from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
            from llmcompressor.core import State
            from llmcompressor.modifiers.gptq import GPTQModifier
        except ImportError as error:
            raise NotImplementedError("llm-compressor is not installed") from error
        net = nn.Sequential(nn.Linear(layer.in_features, layer.out_features)).requires_grad_(False)
        net[0].load_state_dict(layer.state_dict())
        where = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        tokens = QuantizationArgs(num_bits=activation_bits, strategy="token", dynamic=True)
        scheme = QuantizationScheme(
            targets=["Linear"],
            weights=QuantizationArgs(num_bits=bits, **where),
            input_activations=tokens if activation_bits < 16 else None,
        )
        modifier, state = GPTQModifier(config_groups={"all": scheme}), State()
        state.update(model=net)
        modifier.on_initialize(state)
        modifier.on_calibration_start(state, None)
        net(fit)
        modifier.on_sequential_epoch_end(state, None, modules=list(net.modules()))
        modifier.on_calibration_end(state, None)
        # Counted as packed, with float16 scales; three bits lie in four, as ours do.
        return net, net[0].weight, max(4, bits) + 16 / (group or layer.in_features)

    return packed


def _torchao(name: str, group: int) -> Callable[[nn.Linear, Tensor | None], Packed]:
    def packed(layer: nn.Linear, fit: Tensor | None) -> Packed:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import torchao.quantization as ao
        except ImportError as error:
            raise NotImplementedError("torchao is not installed") from error
        if name == "w8a8":
            config = ao.Int8DynamicActivationInt8WeightConfig()
        else:
            config = ao.Int8DynamicActivationIntxWeightConfig(
                weight_dtype=torch.int4, weight_granularity=ao.PerGroup(group)
            )
        net = nn.Sequential(nn.Linear(layer.in_features, layer.out_features))
        net[0].load_state_dict(layer.state_dict())
        ao.quantize_(net, config)
        # It keeps int4 codes in bytes on a CPU; counted as packed, with float16 scales.
        bits = 8 + 16 / layer.in_features if name == "w8a8" else 4 + 16 / group
        return net, net[0].weight.dequantize(), bits

    return packed


def measured(layers: list[Layer], make: Callable[[nn.Linear, Tensor | None], Packed]) -> dict[str, float]:
    """Means over the layers that the method takes."""
    bits, weights, outputs = [], [], []
    for layer, x, fit in layers:
        try:
            twin, weight, bits_per_weight = make(layer, fit)
        except NotImplementedError as reason:
            refused = str(reason)
            continue
        exact = layer(x)
        bits.append(bits_per_weight)
        weights.append(_relative(weight.float(), layer.weight))
        outputs.append(_relative(twin(x).float(), exact))
    if not bits:
        return {"not_run": refused}
    mean = {"bits": bits, "weight_error": weights, "output_error": outputs}
    return {"layers": len(bits), **{key: round(sum(values) / len(values), 4) for key, values in mean.items()}}


def _relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def main() -> None:
    import_host()
    import_pack()
    torch.set_num_threads(2)
    with torch.inference_mode():
        sets = {"trained": list(trained_layers()), "random": list(random_layers())}
    rows = []
    with torch.no_grad():
        for name, make in methods():
            rows.append({"method": name, **{kind: measured(layers, make) for kind, layers in sets.items()}})
            print(rows[-1], flush=True)
    version = importlib.import_module("importlib.metadata").version
    counts = {kind: len(layer_list) for kind, layer_list in sets.items()}
    versions = {"comfy_kitchen": version("comfy-kitchen")}
    if importlib.util.find_spec("llmcompressor"):
        versions["llm_compressor"] = version("llmcompressor")
    record("error", {"layers": counts, **versions, "rows": rows}, on_demo=True)


if __name__ == "__main__":
    main()
