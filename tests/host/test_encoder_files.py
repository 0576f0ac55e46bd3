"""Save and Load Quantized Text Encoder: what was saved encodes as before, bit for bit, in both forms."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from encoder_files import SIZES, TYPES, SharedEncoders, encoder_files, keep_sizes, load
from exactness import differ, near, same_bits
from layouts import need_layout
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from text_encoders import text_encoder, tokenizers_read_once, with_lora

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "a red fox in the snow"
T5_QUERY = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q"
CLIP_QUERY = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
LLM_QUERY = "qwen25_3b.transformer.model.layers.0.self_attn.q_proj"
KEYS = {
    LLM_QUERY: "text_encoders." + LLM_QUERY,
    T5_QUERY: "text_encoders." + T5_QUERY,
    CLIP_QUERY: "lora_te1_" + CLIP_QUERY.removeprefix("clip_l.transformer.").replace(".", "_"),
}
"""Layers, and how files of LoRAs name them."""


@pytest.fixture(scope="module", autouse=True)
def tokenizers(pack):
    with tokenizers_read_once():
        yield


@pytest.fixture(scope="module")
def encoders(pack, tmp_path_factory):
    return SharedEncoders(tmp_path_factory.mktemp("encoders"), partial(quantized, pack))


@pytest.fixture(autouse=True)
def small(pack, monkeypatch):
    keep_sizes(monkeypatch)


def quantized(pack, clip, form: str = "w4a8", recipe: str = "compact"):
    backends, families = pack("nodes.quantization.backends"), pack("nodes.quantization.encoder_families")
    if recipe == "stock":
        job = backends.stock_text_job_for(clip.patcher, form, keep=families.read_in_floats(clip))
    else:
        job = backends.text_job_for(clip.patcher, form)
    return pack("nodes.quantization.text_encoder").quantized_clip(clip, job, ())[0]


def said(clip) -> list[torch.Tensor]:
    """The conditioning, and the pooled output where there is one. FLUX's T5 reads 256 tokens of any prompt, which takes
    seconds and shows no more than 16 do: but for a CLIP that has been told another number."""
    options = {"t5xxl_min_length": 16, **clip.tokenizer_options}
    (value, more), *rest = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT, tokenizer_options=options))
    pooled = more.get("pooled_output")
    return [value, *([] if pooled is None else [pooled])]


def says_the_same(one, other) -> bool:
    if one.tokenize(PROMPT) != other.tokenize(PROMPT):
        return False
    pairs = list(zip(said(one), said(other), strict=True))
    return all(same_bits(a, b) for a, b in pairs)


def types_of(clip) -> dict[str, torch.dtype]:
    """What the host has noted of the values of layers that are not packed: it moves them to the device in that type."""
    modules = clip.cond_stage_model.named_modules()
    floats = ((name, module) for name, module in modules if not hasattr(module, "float_weight"))
    return {
        f"{name}.{key}": value
        for name, module in floats
        for key, value in vars(module).items()
        if key.endswith("_comfy_model_dtype")
    }


def stock_paths(pack, clip, folder) -> list:
    encoders = pack("nodes.quantization.encoder_families").encoders_of(clip.cond_stage_model)
    return [folder / f"stock {name}.safetensors" for name in encoders]


# --- round trips


@pytest.mark.parametrize("family", TYPES)
def test_our_file_encodes_as_before(pack, encoders, tmp_path, family):
    files = pack("nodes.quantization.encoder_files")
    source = encoders.source(family)
    full = said(source)
    twin = encoders.twin(family)
    path, again = tmp_path / "ours.safetensors", tmp_path / "again.safetensors"
    files.save_encoder(twin, path)
    loaded = files.load_encoder(path, SIZES)
    assert says_the_same(twin, loaded)
    assert differ(said(loaded)[0], full[0]), "the float one was loaded"
    assert same_bits(said(source)[0], full[0])
    assert type(loaded.patcher) is type(twin.patcher)
    assert loaded.patcher.model_size() == twin.patcher.model_size() < source.patcher.model_size()
    assert not any(value.is_meta for value in loaded.cond_stage_model.state_dict().values())
    assert types_of(loaded) == types_of(twin)
    files.save_encoder(loaded, again)
    first, second = load_file(path), load_file(again)
    assert first.keys() == second.keys()
    assert all(same_bits(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("form", ["w8a8", "w4a8"])
@pytest.mark.parametrize("family", ["flux", "qwen", "gemma"])
def test_the_stock_loader_encodes_as_before(pack, encoders, tmp_path, family, form):
    need_layout(form)
    files, families = pack("nodes.quantization.encoder_files"), pack("nodes.quantization.encoder_families")
    source, twin = encoders.source(family), encoders.twin(family, form, "stock")
    assert files.lost_in_stock(twin) == ""
    paths = stock_paths(pack, twin, tmp_path)
    assert files.save_stock_encoders(twin, paths) == TYPES[family].lower()
    content = [load_file(path) for path in paths]
    assert any(key.endswith(".comfy_quant") for key in content[-1])
    stock = load(paths, TYPES[family])
    assert says_the_same(twin, stock)
    assert all(near(a, b, 0.7) and differ(a, b) for a, b in zip(said(stock)[:1], said(source)[:1], strict=True))
    assert families.family_of(twin).clip_type == TYPES[family]


def test_a_t5_in_float8_becomes_a_stock_file_that_computes_in_halves(pack, encoders, tmp_path):
    """The host takes the type from the norms: in float8 every weight would have been rounded to it once more."""
    need_layout("w4a4")
    files = pack("nodes.quantization.encoder_files")
    source = encoders.source("flux", torch.float8_e4m3fn)
    assert source.cond_stage_model.get_submodule(T5_QUERY).weight.dtype == torch.float8_e4m3fn
    twin = quantized(pack, source, "w4a4", "stock")
    paths = stock_paths(pack, twin, tmp_path)
    files.save_stock_encoders(twin, paths)
    stock = load(paths, "FLUX")
    assert stock.cond_stage_model.t5xxl.transformer.encoder.final_layer_norm.weight.dtype == torch.float16
    assert says_the_same(twin, stock)


@pytest.mark.parametrize("family", ["clip_l", "sdxl"])
def test_the_stock_loader_reads_clips_in_floats_alone(pack, encoders, refused, family):
    """Packed, the host would take their bytes for weights."""
    with refused(pack("qsched_core").QuantizationError, "in floats alone", 'recipe "compact"'):
        quantized(pack, encoders.source(family), "w8a8", "stock")


def test_a_clip_with_more_positions_is_made_again(pack, tmp_path, monkeypatch):
    """The host reads their number off the file; the small sizes of the others would have hidden it."""
    import comfy.sd

    monkeypatch.undo()

    def options() -> dict:
        return {"dtype": torch.float32, "model_config": dict(SIZES["clip_l_model_config"])}

    (path,) = encoder_files("clip_l", tmp_path)
    values, name = load_file(path), "text_model.embeddings.position_embedding.weight"
    values[name] = torch.cat([values[name]] * 3)
    save_file(values, path)
    source = comfy.sd.load_clip([str(path)], None, comfy.sd.CLIPType.STABLE_DIFFUSION, options())
    twin, files = quantized(pack, source), pack("nodes.quantization.encoder_files")
    files.save_encoder(twin, tmp_path / "long.safetensors")
    loaded = files.load_encoder(tmp_path / "long.safetensors", options())
    assert said(loaded)[0].shape[1] == 3 * 77
    assert says_the_same(twin, loaded)


@pytest.mark.parametrize("recipe", ["compact", "stock"])
def test_a_lora_on_a_packed_layer_is_in_our_file(pack, encoders, tmp_path, recipe):
    if recipe == "stock":
        need_layout("w8a8")
    files = pack("nodes.quantization.encoder_files")
    twin = encoders.twin("qwen", "w8a8", recipe)
    assert files.lost_in_stock(twin) == ("" if recipe == "stock" else "the LoRAs on it")
    adapted = with_lora(twin, KEYS[LLM_QUERY], LLM_QUERY)
    assert files.lost_in_stock(adapted) == "the LoRAs on it"
    path = tmp_path / "with a LoRA.safetensors"
    files.save_encoder(adapted, path)
    loaded = files.load_encoder(path, SIZES)
    assert list(loaded.patcher.patches) == [f"{LLM_QUERY}.weight"]
    assert says_the_same(adapted, loaded)
    assert differ(said(loaded)[0], said(twin)[0]), "the LoRA did nothing"
    assert differ(said(with_lora(loaded, KEYS[LLM_QUERY], LLM_QUERY))[0], said(loaded)[0])
    assert says_the_same(adapted, loaded)


def test_a_lora_on_a_layer_that_stays_float_is_merged_into_the_stock_file(pack, encoders, tmp_path):
    need_layout("w8a8")
    files = pack("nodes.quantization.encoder_files")
    twin = encoders.twin("flux", "w8a8", "stock")
    adapted = with_lora(twin, KEYS[CLIP_QUERY], CLIP_QUERY)
    assert files.lost_in_stock(adapted) == ""
    paths = stock_paths(pack, twin, tmp_path)
    files.save_stock_encoders(adapted, paths)
    stock = load(paths, "FLUX")
    assert near(said(stock)[1], said(adapted)[1])
    assert differ(said(adapted)[1], said(twin)[1]), "the LoRA did nothing"


def test_clip_skip_and_options_of_the_tokenizer_are_kept(pack, encoders, tmp_path):
    files = pack("nodes.quantization.encoder_files")
    skipped = encoders.twin("sdxl")
    skipped.clip_layer(-3)
    path = tmp_path / "skip.safetensors"
    files.save_encoder(skipped, path)
    loaded = files.load_encoder(path, SIZES)
    assert loaded.layer_idx == -3
    assert says_the_same(skipped, loaded)
    plain = loaded.clone()
    plain.clip_layer(None)
    assert differ(said(plain)[0], said(loaded)[0])


@pytest.fixture
def options_in_a_file(pack):
    """The options of a CLIP from a file's metadata."""
    files = pack("nodes.quantization.encoder_files")
    about = {"clip_type": "STABLE_DIFFUSION", "naming": "0", "encoders": "clip_l"}
    return lambda options: files._described({**about, "clip_options": json.dumps(options)}, Path("a.safetensors"))[1]


@pytest.mark.parametrize("scheduled", [True, False])
def test_what_a_clip_was_told_comes_back(pack, options_in_a_file, scheduled):
    plain = {"t5xxl_min_length": 300, "disable_weights": True}
    clip = SimpleNamespace(layer_idx=-2, tokenizer_options={**plain, "class": object()}, use_clip_schedule=scheduled)
    options = options_in_a_file(pack("nodes.quantization.encoder_files")._options_of(clip))
    assert options == {"layer_idx": -2, "tokenizer_options": plain, "use_clip_schedule": scheduled}


@pytest.mark.parametrize("value", [1e6, -(10**6), float("inf"), [300], {"t5xxl": 1e6}, {"t5xxl": {"min_length": 1}}])
def test_an_option_that_no_tokenizer_has_is_refused(pack, options_in_a_file, refused, value):
    """A length of millions would fill the memory."""
    assert options_in_a_file({"tokenizer_options": {"min_length": 999_999}})["tokenizer_options"]["min_length"] > 0
    with refused(pack("qsched_core").QuantizationError, "unknown family"):
        options_in_a_file({"tokenizer_options": {"min_length": value}})


def test_what_stock_files_have_no_place_for_is_named(pack, encoders, tmp_path):
    need_layout("w8a8")
    files = pack("nodes.quantization.encoder_files")
    twin = encoders.twin("flux", "w8a8", "stock")
    twin.set_tokenizer_option("t5xxl_min_length", 300)
    assert files.lost_in_stock(twin) == "CLIP skip and options of the tokenizer"
    files.save_encoder(twin, tmp_path / "options.safetensors")
    loaded = files.load_encoder(tmp_path / "options.safetensors", SIZES)
    assert said(loaded)[0].shape[1] == 300
    assert says_the_same(twin, loaded)
    twin = quantized(pack, encoders.source("gemma"), "w8a8", "stock")  # its own: its network is changed
    twin.cond_stage_model.projection = torch.nn.Linear(4, 4)
    assert files.lost_in_stock(twin) == "its layers outside the encoder"


def test_keys_of_encoders_that_see_are_those_that_the_host_renames(pack):
    import comfy.utils

    family = pack("nodes.quantization.encoder_families").Family("KREA2", 1, ("qwen3vl_4b",))
    names = ("model.layers.0.mlp.up_proj.weight", "visual.merger.norm.weight", "model.lm_head.weight")
    (part,) = family.parts({f"qwen3vl_4b.transformer.{name}": name for name in names}, {})
    renames = {"model.language_model.": "model.", "model.visual.": "visual.", "lm_head.": "model.lm_head."}
    assert not part.keys() & set(names)
    assert comfy.utils.state_dict_prefix_replace(part, renames) == {name: name for name in names}


# --- files and CLIPs that are none


def test_a_float_clip_and_one_of_no_loader_are_refused(pack, encoders, tmp_path, refused):
    import comfy.sd

    files, error = pack("nodes.quantization.encoder_files"), pack("qsched_core").QuantizationError
    source, path = encoders.source("clip_l"), tmp_path / "never.safetensors"
    with refused(error, "this text encoder is not quantised", "Quantize Text Encoder"):
        files.save_encoder(source, path)
    stranger = text_encoder("lumina2", model_options=SIZES)  # its tokenizer is no host's; all else is
    noted = ([], None, comfy.sd.CLIPType.LUMINA2, SIZES)
    stranger.patcher.cached_patcher_init = (comfy.sd.load_clip_model_patcher, noted)
    with refused(error, "would not know this text encoder again"):
        files.save_encoder(quantized(pack, stranger), path)
    with refused(error, "make no text encoder like this"):
        quantized(pack, stranger, "w8a8", "stock")
    assert not path.exists()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Files of ours, by family: made once."""
    return {}


@pytest.fixture
def saved(pack, encoders, tmp_path, contents):
    """``saved(family)``: (path, metadata, tensors) of a file of ours."""
    files = pack("nodes.quantization.encoder_files")

    def save(family: str):
        path = tmp_path / "ours.safetensors"
        if family not in contents:
            files.save_encoder(encoders.twin(family), path)
            contents[family] = path.read_bytes()
        path.write_bytes(contents[family])
        with safe_open(path, framework="pt") as file:
            return path, dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}

    return save


def test_files_of_the_other_loader_are_told_apart(pack, encoders, saved, demo, tmp_path, refused):
    error, files = pack("qsched_core").QuantizationError, pack("nodes.quantization.encoder_files")
    models = pack("nodes.quantization.files")
    path, *_ = saved("clip_l")
    with refused(error, "holds a text encoder", "Load Quantized Text Encoder"):
        models.load_model(path)
    job = pack("nodes.quantization.backends").job_for(demo[0], "w4a8")
    twin, _ = pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)
    models.save_model(twin, tmp_path / "model.safetensors")
    with refused(error, "holds no text encoder", "Load Quantized Model"):
        files.load_encoder(tmp_path / "model.safetensors")
    (stock,) = encoders.files("clip_l", torch.float32)
    with refused(error, "no quantised model of ours"):
        files.load_encoder(stock)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(pack, saved, refused, share):
    path, *_ = saved("clip_l")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with refused(pack("qsched_core").QuantizationError, "safetensors file"):
        pack("nodes.quantization.encoder_files").load_encoder(path, SIZES)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clip_type": "HOLOGRAM"}, "unknown family"),
        ({"clip_type": "__class__"}, "unknown family"),
        ({"naming": "7"}, "unknown family"),
        ({"naming": "-1"}, "unknown family"),
        ({"encoders": ""}, "unknown family"),
        ({"encoders": "a b c d e"}, "unknown family"),
        ({"encoders": "clip_l clip_l"}, "unknown family"),
        ({"clip_options": "[]"}, "unknown family"),
        ({"clip_options": json.dumps({"layer_idx": "all"})}, "unknown family"),
        ({"clip_options": json.dumps({"layer_idx": 1e300})}, "unknown family"),
        ({"clip_options": json.dumps({"tokenizer_options": {"a": {"b": {"c": 1}}}})}, "unknown family"),
        ({"clip_options": "{" * 5000}, "unknown family"),
        ({"encoders": "clip_g"}, "unknown family"),
    ],
)
def test_a_family_that_cannot_be_true_is_refused(pack, saved, refused, changes, text):
    path, about, tensors = saved("clip_l")
    save_file(tensors, path, {**about, **changes})
    with refused(pack("qsched_core").QuantizationError, text):
        pack("nodes.quantization.encoder_files").load_encoder(path, SIZES)


def test_other_layers_and_shapes_are_refused_before_anything_is_made(pack, saved, refused, monkeypatch):
    files, error = pack("nodes.quantization.encoder_files"), pack("qsched_core").QuantizationError
    path, about, tensors = saved("clip_l")
    monkeypatch.setattr(files, "restore", lambda *arguments: pytest.fail("something was made of it"))
    norm = "clip_l.transformer.text_model.final_layer_norm.weight"
    layer = "clip_l.transformer.text_model.encoder.layers.2.mlp.fc1"
    fewer = {name: value for name, value in tensors.items() if name != norm}
    records = json.loads(about["layers"])
    other = {**about, "layers": json.dumps({**records, f"{layer}x": records[layer]})}
    for metadata, content in (
        (about, fewer),
        (about, {**tensors, "extra": torch.zeros(2)}),
        (about, {**tensors, "clip_l.transformer.extra": torch.zeros(2)}),
        (about, {**tensors, norm: torch.zeros(32)}),
        (other, {**tensors, f"{layer}x.weight": tensors[f"{layer}.weight"].clone()}),
    ):
        save_file(content, path, metadata)
        with refused(error, "this ComfyUI"):
            files.load_encoder(path, SIZES)


def test_a_damaged_tokenizer_is_refused(pack, saved, refused):
    files, error = pack("nodes.quantization.encoder_files"), pack("qsched_core").QuantizationError
    path, about, tensors = saved("gemma")
    name = "tokenizer.spiece_model"
    for value in (torch.zeros(4), torch.zeros(2, 2, dtype=torch.uint8), torch.arange(99, dtype=torch.uint8), None):
        content = {**tensors, name: value} if value is not None else {k: v for k, v in tensors.items() if k != name}
        save_file(content, path, about)
        with refused(error, "tokenizer is damaged" if value is not None and value.dtype != torch.uint8 else "t"):
            files.load_encoder(path, SIZES)


def test_the_host_can_load_the_file_again_by_itself(pack, saved):
    """As it does for another GPU."""
    path, *_ = saved("clip_l")
    patcher = pack("nodes.quantization.encoder_files").load_encoder(path, SIZES).patcher
    make, arguments = patcher.cached_patcher_init
    again = make(*arguments, disable_dynamic=True)
    assert again is not patcher and type(again) is type(patcher)
    first, second = (pack("nodes.quantization.patcher").bytes_of(each.model) for each in (patcher, again))
    assert first.keys() == second.keys()
    assert all(same_bits(value, second[name]) for name, value in first.items())


# --- the nodes


@pytest.fixture
def folders(pack, tmp_path, monkeypatch):
    """The host's folders of models in ``tmp_path``, and ours among them."""
    import folder_paths

    models = tmp_path / "models"
    monkeypatch.setattr(folder_paths, "models_dir", str(models))
    listing = {
        "text_encoders": ([str(models / "text_encoders"), str(models / "clip")], {".safetensors"}),
        "embeddings": ([str(models / "embeddings")], set()),
    }
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", listing)
    pack("nodes.host.folders").register_folders()
    return models


@pytest.fixture
def save_node(pack, folders, monkeypatch):
    node = pack("nodes.text_encoder").QSchedSaveQuantizedTextEncoder
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None), raising=False)
    return node


def test_the_nodes_save_and_load_ours_and_overwrite_nothing(pack, encoders, folders, save_node, monkeypatch):
    module, files = pack("nodes.text_encoder"), pack("nodes.quantization.encoder_files")
    twin = encoders.twin("clip_l")
    first, second = (save_node.execute(twin, "mine") for _ in range(2))
    assert (first.args, second.args) == (("mine.safetensors",), ("mine (2).safetensors",))
    assert first.ui["text"][0].startswith("Saved models/qsched_text_encoders/mine.safetensors, ")
    assert first.ui["text"][0].endswith("for Load Quantized Text Encoder.")
    assert (folders / "qsched_text_encoders" / "mine (2).safetensors").exists()
    load_encoder = files.load_encoder
    monkeypatch.setattr(files, "load_encoder", lambda path: load_encoder(path, SIZES))
    node = module.QSchedLoadQuantizedTextEncoder
    assert says_the_same(node.execute("mine.safetensors").args[0], twin)
    assert isinstance(node.fingerprint_inputs("mine.safetensors"), float)
    assert node.fingerprint_inputs("none.safetensors") == "none.safetensors"


def test_the_nodes_save_a_pair_for_the_stock_loader(pack, encoders, folders, save_node, refused):
    need_layout("w8a8")
    node = pack("nodes.text_encoder").QSchedQuantizeTextEncoder
    twin, report = node.execute(encoders.source("flux"), "w8a8", "format's own", "", "", "stock").args
    assert "activations stay floats" in report and "kitchen (unpacks)" in report
    out = save_node.execute(twin, "pair.safetensors")
    names = ["pair clip_l.safetensors", "pair t5xxl.safetensors"]
    assert out.args == ("\n".join(names),)
    assert out.ui["text"][0].endswith("for Load CLIP (Dual); its type there is flux.")
    assert says_the_same(load([folders / "text_encoders" / name for name in names], "FLUX"), twin)
    out = save_node.execute(with_lora(twin, KEYS[T5_QUERY], T5_QUERY), "pair")
    assert out.args == ("pair.safetensors",)
    assert out.ui["text"][0].endswith(" ComfyUI's own formats have no place for the LoRAs on it.")
    with refused(pack("qsched_core").QuantizationError, "no text encoder to save"):
        save_node.execute(None, "none")
    with refused(pack("qsched_core").PresetError, "no file name"):
        save_node.execute(twin, "../up")


def test_a_loader_that_reads_something_else_leaves_no_file(pack, encoders, tmp_path, refused, monkeypatch):
    need_layout("w8a8")
    files, families = pack("nodes.quantization.encoder_files"), pack("nodes.quantization.encoder_families")
    twin = encoders.twin("gemma", "w8a8", "stock")
    paths = stock_paths(pack, twin, tmp_path)
    load_parts = families.Family.load

    def other(family, parts, options):
        clip = load_parts(family, parts, options)
        if options["initial_device"].type == "cpu":
            clip.cond_stage_model.gemma2_2b.transformer.model.norm.weight.data += 1
        return clip

    monkeypatch.setattr(families.Family, "load", other)
    with refused(pack("qsched_core").QuantizationError, "would not know"):
        files.save_stock_encoders(twin, paths)
    assert not any(path.exists() for path in paths)
    assert not list(tmp_path.glob(".qsched-*"))
