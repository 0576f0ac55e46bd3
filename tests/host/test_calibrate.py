"""JAQ Calibrate on the real host: sockets, prompt sets, metrics, memory, journals; two trials on the demo model."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_clip import write_folder

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [
    f"a {size} {thing} on a {ground} background"
    for size in ("small", "large")
    for ground in ("white", "sky")
    for thing in ("apple", "star")
]


@pytest.fixture
def errors(pack):
    """The pack's own classes, not the checkout's."""
    return pack("qsched_core")


@pytest.fixture(scope="module")
def twin(demo, pack):
    job = pack("nodes.quantization.backends").job_for(demo[0], "w4a4", group_size=0, backend="torch")
    return pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]


@pytest.fixture
def node(calibrate_node):
    return calibrate_node


@pytest.fixture
def run(node, pack, demo, twin):
    """Executes the node, with a node of settings; (preset, report, the outputs)."""

    settings = pack("nodes.calibrating.options").CalibrationSettings
    ours = {field.name for field in dataclasses.fields(settings)}
    few = {"space": "both ends", "radius": 0.2, "verdict_seeds": 1}

    def run(**changed):
        of_settings = {name: value for name, value in changed.items() if name in ours}
        inputs = {
            "model": twin,
            "clip": demo[1],
            "vae": demo[2],
            "latent_image": {"samples": torch.zeros(1, 16, 8, 8)},
            "prompts": "\n".join(PROMPTS),
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "trials": 2,
            "metric": "demo",
            "batch_size": 16,
            "negative": "",
            "settings": settings(**{**few, **of_settings}),
            **{name: value for name, value in changed.items() if name not in ours},
        }
        with torch.inference_mode():
            out = node.execute(**inputs)
        return out.args[0], json.loads(out.ui["qsched_report"][0]), out.args

    return run


@pytest.fixture(scope="module")
def plain_runs() -> list:
    return []


@pytest.fixture
def plain(run, plain_runs):
    """What ``run()`` comes to. It is run once: the folders of every test are empty, so it would come to the same, and
    in those of another test nothing can be read from its journal."""
    if not plain_runs:
        plain_runs.append(run())
    return plain_runs[0]


# --- sockets


def test_names_and_sockets_that_mean_the_same_give_the_same(run, plain, demo, twin):
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import BasicGuider

    _, names, _ = plain
    sampler = comfy.samplers.sampler_object("euler")
    guider = BasicGuider.execute(demo[0], encoded(demo, "anything")).args[0]
    conds = dict(guider.original_conds)
    sigmas = torch.tensor(names["sigmas"])
    preset, sockets, _ = run(steps=9, sampler_name="lcm", sampler=sampler, sigmas=sigmas, guider=guider)
    assert sockets["trace"] == names["trace"]
    assert sockets["gains"] == names["gains"]
    assert (preset.binding.sampler, preset.binding.scheduler, preset.binding.cfg) == ("euler", "", 1.0)
    assert guider.original_conds == conds and guider.model_patcher is demo[0], "the user's GUIDER is not touched"


def encoded(demo, text):
    return demo[1].encode_from_tokens_scheduled(demo[1].tokenize(text))


def test_a_guider_with_guidance_is_followed(run, plain, demo):
    from comfy_extras.nodes_custom_sampler import CFGGuider

    guider = CFGGuider.execute(demo[0], encoded(demo, "x"), encoded(demo, "blur"), 2.0).args[0]
    preset, report, _ = run(guider=guider)
    assert preset.binding.cfg == 2.0
    assert report["trace"] != plain[1]["trace"]


@pytest.mark.parametrize("bad", [[1.0], [0.5, 1.0, 0.0], [1.0, float("nan"), 0.0], [1.0, 1.0, 0.0]], ids=str)
def test_sigmas_that_are_no_schedule_are_refused(errors, run, refused, bad):
    with refused(errors.SamplingError, "the SIGMAS input"):
        run(sigmas=torch.tensor(bad))


def test_a_guider_without_a_positive_is_refused(errors, run, refused):
    with refused(errors.SamplingError, "this GUIDER has no positive conditioning."):
        run(guider=SimpleNamespace(original_conds={}))


def test_a_preset_on_the_sampler_does_not_take_part(run, plain, pack):
    import comfy.samplers

    import qsched_core as qs

    preset = qs.Preset(qs.Coefficients.constant(2, c_eps=0.8), (1.0, 0.5, 0.0))
    sampler = pack("nodes.sampling.patch").sampler_with(
        comfy.samplers.sampler_object("euler"), pack("nodes.sampling.patch").PresetUse(preset)
    )
    assert run(sampler=sampler)[1]["trace"] == plain[1]["trace"]


# --- prompts


def test_conditionings_of_ones_own_need_no_clip(run, plain, demo):
    prepared = SimpleNamespace(
        texts=tuple(PROMPTS), note="", digest="x", verdict=(), has_texts=True,
        conditionings=[encoded(demo, text) for text in PROMPTS],
    )  # fmt: skip
    assert run(clip=None, prompt_set=prepared)[1]["trace"] == plain[1]["trace"]


def test_a_second_set_is_kept_for_the_verdict(run):
    note = "8 of 10000 prompts drawn with seed 0"
    prompt_set = SimpleNamespace(texts=tuple(PROMPTS), note=note, digest="y", verdict=(0, 1, 2))
    _, report, _ = run(prompt_set=prompt_set)
    assert report["held_out"] == {"prompts": 3, "noises": 1}
    assert any(note in line for line in report["verdict"])


@pytest.mark.parametrize(("name", "content"), [
    ("p.csv", "prompt\n" + "\n".join(PROMPTS)), ("p.yaml", "".join(f"- {text}\n" for text in PROMPTS)),
])  # fmt: skip
def test_a_table_of_prompts_is_read(run, plain, pack, name, content):
    from pathlib import Path

    import folder_paths

    Path(folder_paths.get_input_directory(), name).write_text(content, "utf-8")
    prompts = pack("nodes.prompts").QSchedPrompts.execute(prompt_file=[name]).args[0]
    assert run(prompts="", prompt_set=prompts)[1]["trace"] == plain[1]["trace"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"clip": None}, "there is no CLIP to encode the prompts."),
        ({"latent_image": {"samples": torch.ones(1, 16, 8, 8)}}, "the latent is not empty."),
        ({"strategy": "greedy"}, "calibration setting space is both ends."),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_before_anything_is_sampled(errors, run, refused, changed, text):
    with refused(errors.CalibrationError, text):
        run(**changed)


def test_the_metric_is_given_the_words_of_a_prompt(pack, errors, demo):
    """Regression: the same pictures' TC fell from 0.97 to 0.81 with weights and tags around the words."""
    metrics = pack("nodes.calibrating.scorer")
    syntax = [f"({text}:1.2), <lora:oil:0.8>" for text in PROMPTS]
    pictures = torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    plain, wrapped = (metrics.load_scorer("demo") for _ in range(2))
    one, other = (s.bind(texts)[0](pictures, range(8)) for s, texts in ((plain, PROMPTS), (wrapped, syntax)))
    assert (one["tc"] == other["tc"]).all()
    assert plain.reading(PROMPTS) == []
    assert wrapped.reading(syntax) == ["8 of 8 prompts were scored without their weights, embeddings and tags."]


def test_prompts_that_the_metric_cuts_are_said_once_in_the_report(run):
    long = [f"{text} and {'a large apple ' * 5}" for text in PROMPTS[:2]]
    _, _, outputs = run(prompts="\n".join([*long, *PROMPTS]))
    assert outputs[1].count("2 of 10 prompts are longer than the metric reads: it scored their beginnings.") == 1


def test_a_schedule_of_nan_is_named(errors, run, refused):
    """kl_optimal divides by the steps less one."""
    with refused(errors.SamplingError, "kl_optimal at 1 step is no schedule: sigma 1 of 2 is nan"):
        run(steps=1, scheduler="kl_optimal")


def test_names_in_place_of_texts_cannot_be_scored(errors, run, refused, demo):
    conditionings = SimpleNamespace(
        texts=tuple(f"conditioning {i}" for i in range(8)), note="", digest="z", verdict=(), has_texts=False,
        conditionings=[encoded(demo, text) for text in PROMPTS],
    )  # fmt: skip
    with refused(errors.CalibrationError, "a text-image score needs the prompts' texts."):
        run(prompt_set=conditionings)


# --- the report


def test_the_full_model_brings_a_distance_and_a_control(run, demo):
    _, report, outputs = run(full_model=demo[0])
    assert len(report["trace"]) == 1 + 2
    assert "distance to full" in report["gains"]
    rows = {row["name"]: row for row in report["table"]["rows"]}
    # Root mean square, pictures in [0, 1]. Not 0.0: the two are made in batches of other sizes, for which a CPU with
    # AVX-512 takes other kernels (9.4e-8 was seen). Quantising moves the pictures a thousand times farther.
    assert rows["full precision"]["distance to full"] == pytest.approx(0.0, abs=1e-6)
    assert rows["quantised"]["distance to full"] > 0.001
    for picture in outputs[2:]:
        assert picture.ndim == 4 and picture.shape[0] == 1 and picture.shape[3] == 3
        assert 0 <= float(picture.min()) < float(picture.max()) <= 1


def test_near_the_full_model_the_winner_is_no_farther_from_it(run, demo):
    """The two random candidates of the test move the pictures a lot: then the identity wins, and that is said."""
    preset, report, _ = run(full_model=demo[0])
    assert report["trace"][0]["whole"] and not any(trial["whole"] for trial in report["trace"][1:])
    assert preset.coefficients.is_identity and not report["accepted"]
    assert preset.record["settings"]["stay near"]
    metrics = "contrast, saturation, sharpness, noise, distance to full"
    assert f"No candidate could win that worsens: {metrics}." in report["verdict"]
    free, _, _ = run(full_model=demo[0], stay_near=False)
    assert not free.record["settings"]["stay near"]


def test_the_eight_bit_twin_is_as_good_a_reference(run, demo, pack):
    """Made by Quantize Model when it is used. Its pictures are nearly the full model's."""
    _, report, _ = run(full_model=pack("nodes.quantization.reference").reference_of(demo[0]))
    rows = {row["name"]: row for row in report["table"]["rows"]}
    assert rows["reference w8a8/channel"]["distance to full"] == pytest.approx(0.0, abs=1e-6)
    assert rows["quantised"]["distance to full"] > 0.001
    assert "Net of that: JAQ" in "".join(report["verdict"]) or report["coefficients"]["c_x"] == [1.0, 1.0]


def test_without_a_full_model_there_is_nothing_to_stay_near_to(plain):
    assert not plain[0].record["settings"]["stay near"]


@pytest.mark.parametrize("strategy", ["grid", "greedy", "random", "tpe"])
def test_every_strategy_ends_with_a_map(run, strategy):
    space = "table" if strategy == "greedy" else "first step"
    _, report, outputs = run(strategy=strategy, space=space, grid=2, steps=3, trials=3)
    assert len(report["trace"]) == {"grid": 5, "greedy": 6}.get(strategy, 4)
    assert outputs[3].shape[0] == 1


def test_the_same_inputs_are_read_from_the_journal(run, pack, monkeypatch):
    first = run()[1]
    calls = []
    generate = pack("nodes.calibrating.generator").HostGenerator.__call__
    monkeypatch.setattr(
        pack("nodes.calibrating.generator").HostGenerator,
        "__call__",
        lambda self, c, i: calls.append(len(i)) or generate(self, c, i),
    )
    again = run()[1]
    assert again["trace"] == first["trace"] and again["gains"] == first["gains"]
    curves = again["coefficients"]
    rows = 1 if {*curves["c_x"], *curves["c_eps"]} == {1.0} else 2  # a candidate that is the identity is not made twice
    assert calls == [4] * rows, "only the before/after picture: its four held-out prompts"
    assert run(k=3.0)[1]["trace"] != first["trace"]


def test_a_journal_that_was_repaired_is_named_in_the_report_and_not_in_the_preset(run, pack):
    """Regression: the console alone knew of it."""
    folder = pack("nodes.host.folders").journal_path("any").parent
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}
    first = run(k=3.5)[1]
    (journal,) = (path for path in folder.glob("*.jsonl") if path.stat().st_mtime_ns != before.get(path))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:-3], lines[-3].replace(b"0", b"1"), *lines[-2:]]))
    preset, report, outputs = run(k=3.5)
    assert report["gains"] == first["gains"]
    assert f"copy of the damaged file is {journal.name}.damaged1." in report["verdict"][-1]
    assert report["verdict"][:-1] == preset.record["verdict"] == first["verdict"]
    assert outputs[1] == "\n".join(report["verdict"])


# --- memory


def shortage() -> RuntimeError:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory")


def test_decoding_and_scoring_halve_their_batch_and_go_on(run, plain, demo, pack, monkeypatch):
    decode, score, sizes = demo[2].decode, pack("demo.judges").DemoScorer.score, []

    def decoded(samples, *args, **kwargs):
        sizes.append(len(samples))
        if len(samples) > 1:
            raise shortage()
        return decode(samples, *args, **kwargs)

    def scored(self, pictures, prompts):
        if len(pictures) > 2:
            raise shortage()
        return score(self, pictures, prompts)

    monkeypatch.setattr(demo[2], "decode", decoded)
    monkeypatch.setattr(pack("demo.judges").DemoScorer, "score", scored)
    report = run(search_seed=0, batch_size=15)[1]
    assert max(sizes) > 1 and sizes.count(max(sizes)) <= 2, "a shortage is remembered"
    values = [[trial["jaq"] for trial in r["trace"]] for r in (plain[1], report)]
    # 1e-4: nets round otherwise in other batches.
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_another_error_is_no_shortage(pack):
    memory = pack("nodes.host.memory")
    with pytest.raises(ValueError, match="broken"):
        memory.Batches(4).run(lambda start, end: (_ for _ in ()).throw(ValueError("broken")), 4)
    with pytest.raises(RuntimeError, match="not enough memory"):
        memory.Batches(4).run(lambda start, end: (_ for _ in ()).throw(shortage()), 4)


# --- metrics


def test_a_metric_is_put_together_of_any_two(errors, pack, node, run, demo, tmp_path, monkeypatch):
    """The demo's dual encoder is an open_clip model; its words' ids are not CLIP's, so its scores mean little here."""
    import shutil

    metrics, menu = pack("nodes.calibrating.scorer"), pack("nodes.calibrating.metric_menu")
    shutil.copytree(pack("demo.files").DUAL_ENCODER, tmp_path / "metrics" / "dual")
    monkeypatch.setattr(menu, "metric_roots", lambda: [tmp_path / "metrics"])
    names = menu.metric_entries("tc"), menu.metric_entries("iq")
    assert any(name.startswith("CLIPScore") for name in names[0]) and any("IQA" in name for name in names[1])
    with pytest.raises(errors.CalibrationError, match="the demo's TC and IQ belong together"):
        metrics.make_scorer("demo", next(iter(names[1])), "none")
    with pytest.raises(errors.CalibrationError, match="lacks the CLIP_VISION"):
        metrics.make_scorer("demo", "demo", "none", clip=demo[1])
    with pytest.raises(errors.CalibrationError, match="there is no tc metric"):
        metrics.make_scorer("nowhere", next(iter(names[1])), "none")


def test_the_distance_to_a_set_of_the_users_is_in_the_verdict(errors, pack, run, refused, tmp_path, monkeypatch):
    """Watched, not searched; another set is another study."""
    from tiny_clip import write_folder

    metrics, menu = pack("nodes.calibrating.scorer"), pack("nodes.calibrating.metric_menu")
    (tmp_path / "metrics").mkdir()
    write_folder(tmp_path / "metrics" / "tiny clip")
    monkeypatch.setattr(menu, "metric_roots", lambda: [tmp_path / "metrics"])
    tc, iq = (next(iter(menu.metric_entries(role))) for role in ("tc", "iq"))

    def report_with(seed: int):
        pictures = torch.rand(9, 64, 64, 3, generator=torch.Generator().manual_seed(seed))
        return run(jaq_metric=metrics.make_scorer(tc, iq, "none", picture_set=pictures))[1]

    report, other = report_with(1), report_with(2)
    plain = run(jaq_metric=metrics.make_scorer(tc, iq, "none"))[1]
    assert "distance to set" not in plain["gains"]
    assert report["trace"] == plain["trace"], "no search sees it"
    values = [r["table"]["rows"][0]["distance to set"] for r in (report, other)]
    assert values[0] > 0, "drawings are no noise"
    assert values[0] != values[1]
    assert any("set of 9 pictures, seen by" in line for line in report["verdict"])
    with refused(errors.CalibrationError, "the demo's metric has a set of its own", "unplug picture_set"):
        metrics.make_scorer("demo", "demo", "none", picture_set=torch.rand(9, 64, 64, 3))


def test_the_paper_s_other_pair_is_offered_where_both_files_are(pack, monkeypatch, tmp_path):
    import shutil

    metrics, menu = pack("nodes.calibrating.scorer"), pack("nodes.calibrating.metric_menu")
    monkeypatch.setattr(menu, "metric_roots", lambda: [tmp_path])
    shutil.copytree(pack("demo.files").DUAL_ENCODER, tmp_path / "ViT-B-16")
    assert not [name for name in menu.metric_names() if "HPSv2.1" in name]
    (tmp_path / "HPSv2.1").mkdir()
    (tmp_path / "HPSv2.1" / "HPS_v2.1_compressed.pt").write_bytes(b"torn")
    assert "AQ-Map (ViT-B-16) + HPSv2.1" in menu.metric_names()
    with pytest.raises(pack("qsched_core").CalibrationError, match="HPS_v2.1_compressed.pt"):
        metrics.load_scorer("AQ-Map (ViT-B-16) + HPSv2.1")


def test_another_open_clip_model_watches_the_one_that_is_optimised(pack, monkeypatch, tmp_path):
    """A score that is gamed seldom games a second one: where its weights are there, the verdict asks it too."""
    metrics = pack("nodes.calibrating.scorer")
    folders = {"first": write_folder(tmp_path / "first")}
    monkeypatch.setattr(metrics, "metric_folders", lambda: dict(folders))
    pictures, texts = torch.rand(2, 32, 32, 3), ["a fox", "a cat"]

    def judged() -> set[str]:
        return set(metrics.load_scorer("first").bind(texts)[1](pictures, [0, 1]))

    alone = judged()
    (tmp_path / "broken").mkdir()
    folders["broken"] = tmp_path / "broken"  # nobody asked for it: it stops nothing
    assert judged() == alone
    folders["second"] = write_folder(tmp_path / "second")
    assert judged() == alone | {"tc of second", "iq of second"}


def test_scorers_leave_the_device_when_a_run_ends(run, pack):
    import comfy.model_management

    scorer = pack("nodes.calibrating.scorer").load_scorer("demo")
    run(jaq_metric=scorer)
    loaded = [model.model for model in comfy.model_management.current_loaded_models]
    assert all(patcher not in loaded for patcher in (scorer._scorer, scorer._judge))


def test_the_page_gets_the_stock_sampler_s_pictures_beside_the_candidate_s(run, pack, monkeypatch):
    events = []
    monkeypatch.setattr(pack("nodes.calibrating.run_progress"), "tell", lambda node, name, event: events.append(event))
    run()
    pairs = [event["pictures"] for event in events if event["pictures"]]
    assert pairs[0]["before"] == pairs[0]["after"], "the first is the stock sampler itself"
    assert pairs[1]["before"] == pairs[0]["before"] != pairs[1]["after"]
    start, _, data = pairs[1]["after"].partition(",")
    assert start == "data:image/jpeg;base64"
    size = Image.open(io.BytesIO(base64.b64decode(data))).size
    assert size == (64, 64), "one picture: of two the divider in the middle would lie on the seam"


def test_the_result_goes_to_the_page_as_rows_of_the_same_prompts(run, pack, monkeypatch):
    outputs = []
    monkeypatch.setattr(pack("nodes.calibrate"), "keep_output", lambda cls, output: outputs.append(output) or output)
    run()
    (pictures,) = outputs[0]["qsched_pictures"]
    assert [row["name"] for row in pictures["rows"]] == ["quantised", "quantised + Q-Sched"]
    assert [len(row["files"]) for row in pictures["rows"]] == [4, 4]
    assert set(pictures["texts"]) < set(PROMPTS)
    assert "images" not in outputs[0], "the host would draw them once more"


def test_one_more_model_is_shown_beside_the_others_and_changes_nothing(run, demo, pack, monkeypatch):
    outputs, calls = [], []
    generator = pack("nodes.calibrating.generator").HostGenerator
    call = generator.__call__

    def count(self, coefficients, indices):
        calls.append((self.model, tuple(indices)))
        return call(self, coefficients, indices)

    monkeypatch.setattr(generator, "__call__", count)
    monkeypatch.setattr(pack("nodes.calibrate"), "keep_output", lambda cls, output: outputs.append(output) or output)
    job = pack("nodes.quantization.backends").job_for(demo[0], "w4a8", group_size=0, backend="torch")
    other = pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]
    _, report, out = run(full_model=demo[0])
    alone = len(calls)
    _, with_other, beside = run(full_model=demo[0], other_model=other)
    assert with_other["gains"] == report["gains"], "it is not judged, and the study is read from the journal"
    rows = [[row["name"] for row in output["qsched_pictures"][0]["rows"]] for output in outputs]
    assert rows[0] == ["full precision", "quantised", "quantised + Q-Sched"]
    assert rows[1] == [*rows[0], "other model: w4a8/channel"]
    sizes = [output["qsched_pictures"][0]["rows"][-1]["files"] for output in outputs]
    assert len(sizes[0]) == len(sizes[1]) == 4
    height = out[2].shape[1] // 3
    assert torch.equal(beside[2][:, : 3 * height], out[2][:, : 3 * height]), "read from a journal they are made again"
    of_other = [indices for model, indices in calls[alone:] if model is other]
    assert len(of_other) == 1, "its pictures are made once"
    held_out = [indices for _, indices in calls[:alone] if min(indices) >= len(PROMPTS)]
    assert len(held_out) <= 4, "two rows of either model: what the verdict was made on is shown, and not made again"


def test_a_model_that_differs_by_its_rounding_alone_is_called_fitted(pack, demo, twin):
    """Layers at its edges keep more bits where an observation has found them: no other format was asked for."""
    title = pack("nodes.calibrating.outcome")._other_title
    prompts = pack("nodes.quantization.study").StudyPrompts(
        demo[0], encoded(demo, PROMPTS[0]), None, {"samples": torch.zeros(1, 16, 8, 8)},
        pack("nodes.sampling.ksampler").Recipe(2, 1.0, "euler", "simple"),
    )  # fmt: skip
    observation = pack("nodes.quantization.layer_observation").observed(demo[0], prompts.sampled(0))
    job = pack("nodes.quantization.backends").job_for(
        demo[0], "w4a4", group_size=0, backend="torch", observation=observation
    )
    gptq = pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0].clone()
    assert pack("nodes.host.model_info").quantization(gptq) != "w4a4/channel"
    assert title(twin, gptq) == "quantised, fitted"
    assert title(gptq, twin) == "other model: w4a4/channel"
    assert title(gptq, demo[0]) == "other model: full precision"


def test_loaded_encoders_score_without_a_file(pack):
    """Pictures are their mean colour, texts name one: cosines are known."""
    metrics = pack("nodes.calibrating.scorer")
    colours = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0), "violet": (1.0, 0.0, 1.0)}
    clip = SimpleNamespace(
        tokenize=lambda text: text, encode_from_tokens=lambda text, return_pooled: (None, torch.tensor([colours[text]]))
    )
    vision = SimpleNamespace(encode_image=lambda pictures: {"image_embeds": pictures.mean((1, 2))})
    score = pack("calibration.metrics.embeddings").CosineScore(*metrics.host_encoders(clip, vision))
    pictures = torch.tensor([colours["red"]] * 2).view(2, 1, 1, 3).expand(2, 8, 8, 3)
    scores = score.score(pictures, ["red", "violet"])
    # ln(100·cos): cos is 1 and sqrt(1/2).
    assert scores.tolist() == pytest.approx([4.60517, 4.60517 - 0.34657], abs=1e-4)


def test_thumbnails_keep_shape_and_mean(pack):
    pictures = torch.rand(2, 512, 1024, 3, generator=torch.Generator().manual_seed(0))
    small = pack("calibration.reference_pictures").thumbnails(pictures)
    assert small.shape == (2, 128, 256, 3)
    # 1e-4: the mean of means of equal areas.
    assert small.mean() == pytest.approx(float(pictures.mean()), abs=1e-4)
