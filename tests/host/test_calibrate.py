"""JAQ Calibrate on the real host: sockets, prompts, journals and memory; two trials on the demo model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from demo_model import PROMPTS, encoded

pytestmark = pytest.mark.usefixtures("one_thread")


# --- sockets


def test_names_and_sockets_that_mean_the_same_give_the_same(calibrate, plain_study, demo, demo_twin):
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import BasicGuider

    _, names, _ = plain_study
    sampler = comfy.samplers.sampler_object("euler")
    guider = BasicGuider.execute(demo[0], encoded(demo, "anything")).args[0]
    conds = dict(guider.original_conds)
    sigmas = torch.tensor(names["sigmas"])
    preset, sockets, _ = calibrate(steps=9, sampler_name="lcm", sampler=sampler, sigmas=sigmas, guider=guider)
    assert sockets["trace"] == names["trace"]
    assert sockets["gains"] == names["gains"]
    assert (preset.binding.sampler, preset.binding.scheduler, preset.binding.cfg) == ("euler", "", 1.0)
    assert guider.original_conds == conds and guider.model_patcher is demo[0], "the user's GUIDER is not touched"


def test_a_guider_with_guidance_is_followed(calibrate, plain_study, demo):
    from comfy_extras.nodes_custom_sampler import CFGGuider

    guider = CFGGuider.execute(demo[0], encoded(demo, "x"), encoded(demo, "blur"), 2.0).args[0]
    preset, report, _ = calibrate(guider=guider)
    assert preset.binding.cfg == 2.0
    assert report["trace"] != plain_study[1]["trace"]


@pytest.mark.parametrize("bad", [[1.0], [0.5, 1.0, 0.0], [1.0, float("nan"), 0.0], [1.0, 1.0, 0.0]], ids=str)
def test_sigmas_that_are_no_schedule_are_refused(errors, calibrate, refused, bad):
    with refused(errors.SamplingError, "the SIGMAS input"):
        calibrate(sigmas=torch.tensor(bad))


def test_a_schedule_of_nan_is_named(errors, calibrate, refused):
    """kl_optimal divides by the steps less one."""
    with refused(errors.SamplingError, "kl_optimal at 1 step is no schedule: sigma 1 of 2 is nan"):
        calibrate(steps=1, scheduler="kl_optimal")


def test_a_guider_without_a_positive_is_refused(errors, calibrate, refused):
    with refused(errors.SamplingError, "this GUIDER has no positive conditioning."):
        calibrate(guider=SimpleNamespace(original_conds={}))


def test_a_preset_on_the_sampler_does_not_take_part(calibrate, plain_study, pack):
    import comfy.samplers

    import qsched_core as qs

    preset = qs.Preset(qs.Coefficients.constant(2, c_eps=0.8), (1.0, 0.5, 0.0))
    sampler = pack("nodes.sampling.patch").sampler_with(
        comfy.samplers.sampler_object("euler"), pack("nodes.sampling.patch").PresetUse(preset)
    )
    assert calibrate(sampler=sampler)[1]["trace"] == plain_study[1]["trace"]


# --- prompts


def test_conditionings_of_ones_own_need_no_clip(calibrate, plain_study, demo):
    prepared = SimpleNamespace(
        texts=tuple(PROMPTS), note="", digest="x", verdict=(), has_texts=True,
        conditionings=[encoded(demo, text) for text in PROMPTS],
    )  # fmt: skip
    assert calibrate(clip=None, prompt_set=prepared)[1]["trace"] == plain_study[1]["trace"]


def test_a_second_set_is_kept_for_the_verdict(calibrate):
    note = "8 of 10000 prompts drawn with seed 0"
    prompt_set = SimpleNamespace(texts=tuple(PROMPTS), note=note, digest="y", verdict=(0, 1, 2))
    _, report, _ = calibrate(prompt_set=prompt_set)
    assert report["held_out"] == {"prompts": 3, "noises": 1}
    assert any(note in line for line in report["verdict"])


@pytest.mark.parametrize(("name", "content"), [
    ("p.csv", "prompt\n" + "\n".join(PROMPTS)), ("p.yaml", "".join(f"- {text}\n" for text in PROMPTS)),
])  # fmt: skip
def test_a_table_of_prompts_is_read(calibrate, plain_study, pack, name, content):
    import folder_paths

    Path(folder_paths.get_input_directory(), name).write_text(content, "utf-8")
    prompts = pack("nodes.prompts").QSchedPrompts.execute(prompt_file=[name]).args[0]
    assert calibrate(prompts="", prompt_set=prompts)[1]["trace"] == plain_study[1]["trace"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"clip": None}, "there is no CLIP to encode the prompts."),
        ({"latent_image": {"samples": torch.ones(1, 16, 8, 8)}}, "the latent is not empty."),
        ({"strategy": "greedy"}, "calibration setting space is both ends."),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_before_anything_is_sampled(errors, calibrate, refused, changed, text):
    with refused(errors.CalibrationError, text):
        calibrate(**changed)


# --- journals


def test_the_same_inputs_are_read_from_the_journal(calibrate, pack, monkeypatch):
    first = calibrate()[1]
    calls = []
    generate = pack("nodes.calibrating.generator").HostGenerator.__call__
    monkeypatch.setattr(
        pack("nodes.calibrating.generator").HostGenerator,
        "__call__",
        lambda self, c, i: calls.append(len(i)) or generate(self, c, i),
    )
    again = calibrate()[1]
    assert again["trace"] == first["trace"] and again["gains"] == first["gains"]
    curves = again["coefficients"]
    rows = 1 if {*curves["c_x"], *curves["c_eps"]} == {1.0} else 2  # a candidate that is the identity is not made twice
    assert calls == [4] * rows, "only the before/after picture: its four held-out prompts"
    assert calibrate(k=3.0)[1]["trace"] != first["trace"]


def test_a_journal_that_was_repaired_is_named_in_the_report_and_not_in_the_preset(calibrate, pack):
    """Regression: the console alone knew of it."""
    folder = pack("nodes.host.folders").journal_path("any").parent
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}
    first = calibrate(k=3.5)[1]
    (journal,) = (path for path in folder.glob("*.jsonl") if path.stat().st_mtime_ns != before.get(path))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:-3], lines[-3].replace(b"0", b"1"), *lines[-2:]]))
    preset, report, outputs = calibrate(k=3.5)
    assert report["gains"] == first["gains"]
    assert f"copy of the damaged file is {journal.name}.damaged1." in report["verdict"][-1]
    assert report["verdict"][:-1] == preset.record["verdict"] == first["verdict"]
    assert outputs[1] == "\n".join(report["verdict"])


def test_what_is_made_is_no_longer_left(pack):
    progress = pack("nodes.calibrating.run_progress").RunProgress(None, 10, 0.2)
    counts = []
    for count in (4, 3, 5):  # more than there were at most, where a study has more pictures than it knew
        progress.generated(count)
        counts.append((progress.done, progress.remaining))
    assert counts == [(4, 6), (7, 3), (12, 0)]


def test_the_time_of_a_picture_is_the_mean_of_all_that_one_model_made(pack, monkeypatch):
    generator, ticks = pack("nodes.calibrating.generator"), iter(range(100))
    monkeypatch.setattr(generator, "time", SimpleNamespace(monotonic=lambda: 6.0 * next(ticks)))
    monkeypatch.setattr(generator, "apply_coefficients", lambda model, coefficients, sigmas: model)
    monkeypatch.setattr(generator.HostGenerator, "sample", lambda self, model, indices: torch.zeros(len(indices), 4))
    monkeypatch.setattr(generator.HostGenerator, "_decode", lambda self, samples: samples)
    conditionings, batches = [[[torch.zeros(1, 1, 1), {}]]] * 4, []
    one = generator.HostGenerator(
        "model", None, conditionings, None, None, SimpleNamespace(sigmas=()), seed=0, batch_size=3,
        on_batch=batches.append,
    )  # fmt: skip
    assert one.seconds_per_picture == 0.0
    assert len(one(None, range(4))) == 4
    assert (one.seconds_per_picture, batches) == (12.0 / 4, [3, 1])
    one(None, range(4))
    assert one.seconds_per_picture == 24.0 / 8
    assert one.with_model("other").seconds_per_picture == 0.0


def test_a_cancel_keeps_the_best_as_soon_as_there_is_one(pack, tiny, presets_folder):
    run, core = pack("nodes.calibrating.run"), pack("qsched_core")
    setup = SimpleNamespace(name="euler", scheduler="simple", cfg=1.0)
    generator = SimpleNamespace(model=tiny.model("FLOW"), sigmas=(1.0, 0.5, 0.0), setup=setup)
    best = core.Coefficients.constant(2, c_eps=1.02)

    def keep(progress) -> list:
        run.Run._keep_best(SimpleNamespace(progress=SimpleNamespace(best=progress)), generator)
        return sorted(presets_folder.glob("*.safetensors"))

    assert keep(None) == []
    assert keep(SimpleNamespace(finished=(), best=best, best_jaq=0.0, identity_jaq=0.0)) == []
    (path,) = keep(SimpleNamespace(finished=("the identity", "another"), best=best, best_jaq=0.2, identity_jaq=0.1))
    preset = core.load_preset(path)
    assert path.stem == "cancelled calibration"
    assert (preset.coefficients, preset.sigmas, preset.verdict) == (best, generator.sigmas, "not validated")


# --- memory


def shortage() -> RuntimeError:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory")


def test_decoding_and_scoring_halve_their_batch_and_go_on(calibrate, plain_study, demo, pack, monkeypatch):
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
    report = calibrate(search_seed=0, batch_size=15)[1]
    assert max(sizes) > 1 and sizes.count(max(sizes)) <= 2, "a shortage is remembered"
    values = [[trial["jaq"] for trial in r["trace"]] for r in (plain_study[1], report)]
    # 1e-4: nets round otherwise in other batches.
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_another_error_is_no_shortage(pack):
    memory = pack("nodes.host.memory")
    with pytest.raises(ValueError, match="broken"):
        memory.Batches(4).run(lambda start, end: (_ for _ in ()).throw(ValueError("broken")), 4)
    with pytest.raises(RuntimeError, match="not enough memory"):
        memory.Batches(4).run(lambda start, end: (_ for _ in ()).throw(shortage()), 4)
