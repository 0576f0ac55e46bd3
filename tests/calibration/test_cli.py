"""`python -m calibration` on a tiny random pipeline: what it writes, what it says, and with which code it ends."""

from __future__ import annotations

import itertools
import json
import os
import runpy
import signal
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from module_files import beside
from PIL import Image
from safetensors.torch import save_file
from study_world import N_PROMPTS, World, quick

from calibration.cli import main as cli
from calibration.metrics.clip import ClipScorer
from calibration.prompts import Prompts
from qsched_core import load_preset

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ["a red ball", "a dog", "two cats", "rain", "an old house", "a tree"]

FREELY = ("--reference", "none", "--accept", "re-tuning", "--space", "both ends", "--radius", "0.2")
"""A score that any model gains by the same coefficients is no repair: such a gain is only taken on request."""

# diffusers' schedulers hand tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory, one_vocabulary) -> Path:
    """A pipeline, an open_clip model and prompts, all local."""
    folder = tmp_path_factory.mktemp("files")
    _write_pipeline(folder / "pipeline")
    _write_clip(folder / "clip")
    (folder / "prompts.txt").write_text("# mine\n" + "\n".join(PROMPTS))
    return folder


def command(place: Path, output: Path, *more: str) -> list[str]:
    base = ["run", str(place / "pipeline"), "--prompts", str(place / "prompts.txt"), "--metric", str(place / "clip")]
    small = ["--size", "16x16", "--trials", "2", "--noises", "1", "--strategy", "random", "--device", "cpu"]
    return [*base, "--steps", "2", "--output", str(output), *small, *more]


@pytest.fixture
def bright(monkeypatch):
    """A metric that likes bright pictures, which c_eps makes: there is something to gain."""

    def score(self, pictures, prompts):
        brightness = pictures.flatten(1).mean(1)
        return {"tc": 100 * brightness, "iq": 0 * brightness}

    monkeypatch.setattr(ClipScorer, "score", score)


@pytest.fixture
def blind(monkeypatch):
    """A metric that does not see the picture: there is nothing to gain."""

    def score(self, pictures, prompts):
        return {"tc": torch.tensor([float(len(prompt)) for prompt in prompts]), "iq": torch.ones(len(prompts))}

    monkeypatch.setattr(ClipScorer, "score", score)


def test_the_metric_is_given_the_words_of_a_prompt():
    texts = []

    class Listening:
        def score(self, pictures, prompts):
            texts.extend(prompts)
            return {"tc": torch.zeros(len(prompts)), "iq": torch.zeros(len(prompts))}

    score, _ = cli.scoring(Listening(), ["(a dog:1.3), <lora:fur:1>", "rain"])
    score(torch.zeros(3, 4, 4, 3), [0, 1, 2])
    assert texts == ["a dog", "rain", "a dog"]


def test_pictures_are_scored_sixteen_at_once_beside_their_prompts():
    batches = []

    class Counting:
        def score(self, pictures, prompts):
            batches.append(len(pictures))
            assert [f"prompt {number}" for number in pictures[:, 0, 0, 0].int().tolist()] == prompts
            return {"tc": pictures[:, 0, 0, 0], "iq": -pictures[:, 0, 0, 0]}

    score, judge = cli.scoring(Counting(), [f"prompt {number}" for number in range(40)])
    indices = [*range(33, 0, -1)]
    pictures = torch.tensor(indices, dtype=torch.float32)[:, None, None, None].expand(33, 4, 4, 3)
    scores = score(pictures, [index + 40 for index in indices])  # another noise of the same prompts
    assert batches == [16, 16, 1]
    assert scores["tc"].tolist() == indices and (scores["iq"] == -scores["tc"]).all()
    assert set(judge(torch.rand(2, 8, 8, 3), [0, 1])) == {"contrast", "saturation", "sharpness", "noise"}


@pytest.fixture
def options(monkeypatch) -> dict:
    """Those of the study, which is stopped before its first picture."""
    result = {}

    def stop(*args, **options):
        result.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "calibrate", stop)
    return result


def test_a_stop_before_the_first_picture_writes_no_preset(place, tmp_path, options, capsys):
    assert cli.main(command(place, tmp_path / "mine.safetensors")) == cli.EXIT_CANCELLED
    assert "stopped" in capsys.readouterr().err and not (tmp_path / "mine.safetensors").exists()


def test_prompts_that_the_metric_cuts_are_said(place, tmp_path, options, capsys):
    long = tmp_path / "long.txt"
    long.write_text("\n".join([*PROMPTS, "a very long dog " * 40]))
    cli.main(command(place, tmp_path / "a.safetensors", "--prompts", str(long)))
    assert capsys.readouterr().out.count("1 of 7 prompts are longer than the metric reads: it scores") == 1


def test_an_accepted_calibration_writes_its_preset_and_draws(place, tmp_path, bright, capsys):
    output, plots = tmp_path / "out" / "mine.safetensors", tmp_path / "plots"
    code = cli.main(command(place, output, "--trials", "6", "--plots", str(plots), *FREELY))
    printout = capsys.readouterr().out
    assert code == cli.EXIT_ACCEPTED, printout
    preset = load_preset(output)
    assert preset.verdict == "accepted as re-tuning"
    assert not preset.coefficients.is_identity
    assert preset.steps == 2
    assert preset.binding.quantization.startswith("conv+w4a8")
    assert preset.record["settings"]["trials"] == 6
    assert preset.record["gain"]["low"] > 0
    assert all(text not in json.dumps(dict(preset.record)) for text in PROMPTS)
    assert "search: " in printout
    assert "min" in printout and "s left" in printout
    assert "Accepted, re-tuning: held-out JAQ" in printout
    assert "with Q-Sched" in printout
    names = sorted(path.name for path in plots.iterdir())
    assert names == ["before and after.png", "curves.png", "map.png", "pairs.png"]
    with Image.open(plots / "before and after.png") as image:
        assert image.size == (3 * 16, 2 * 16)


def test_before_stands_above_after_with_each_prompt_in_its_column(tmp_path):
    result = World().calibrate()

    class Painter:
        """Pictures as bright as their number, with a red that Q-Sched makes; what is no colour is cut."""

        steps, sigmas = len(result.coefficients), (1.0, 0.7, 0.4, 0.2, 0.0)

        def __call__(self, coefficients, indices):
            pictures = torch.stack([torch.full((8, 5, 3), index / 255) for index in indices])
            pictures[..., 0] = 0.0 if coefficients.is_identity else 1.5
            pictures[:, 0, 0] = torch.nan
            pictures[:, 1, 0, 1] = -0.5
            return pictures

    cli._draw(tmp_path, Painter(), result, quick(), Prompts(("a prompt",) * N_PROMPTS, ""))
    with Image.open(tmp_path / "before and after.png") as image:
        pixels = np.asarray(image).astype(int).reshape(2, 8, -1, 5, 3)
    assert pixels.shape[2] == cli.GALLERY_PROMPTS
    assert pixels[0, 2:, :, :, 0].max() == 0 and pixels[1, 2:, :, :, 0].min() == 255
    assert pixels[:, 7, :, 4, 2].tolist() == [list(result.identity.indices[: cli.GALLERY_PROMPTS])] * 2
    assert pixels[:, 0, :, 0].max() == pixels[:, 1, :, 0, 1].max() == 0


def test_a_gain_that_the_reference_has_as_well_is_no_repair(place, tmp_path, bright, capsys):
    """Regression: the default search signed it."""
    output = tmp_path / "mine.safetensors"
    assert cli.main(command(place, output, "--trials", "6", "--free")) == cli.EXIT_REFUSED
    printed = capsys.readouterr().out
    assert load_preset(output).coefficients.is_identity
    assert "Control: the same coefficients change the reference model's JAQ by +" in printed
    assert "reference with Q-Sched" in printed and "distance to full" in printed
    assert ("Re-tuning, identity recommended: " in printed) or ("something else gets worse" in printed)


def test_no_gain_is_a_preset_of_the_identity_and_the_same_command_only_reads(
    place, tmp_path, blind, monkeypatch, capsys
):
    output = tmp_path / "mine.safetensors"
    assert cli.main(command(place, output)) == cli.EXIT_REFUSED == 3
    preset = load_preset(output)
    assert preset.verdict == "identity recommended"
    assert preset.coefficients.is_identity
    assert preset.record["settings"]["space"] == "both ends", "there is a reference"
    printouts = [capsys.readouterr().out]
    assert "identity recommended" in printouts[0]
    monkeypatch.setattr(cli, "scoring", lambda *_: (None, None))  # nothing may be scored any more
    assert cli.main(command(place, output)) == cli.EXIT_REFUSED
    assert load_preset(output) == preset
    printouts.append(capsys.readouterr().out)
    names = [[line.split(" in ")[0] for line in text.splitlines() if line.startswith("qsched ")] for text in printouts]
    assert names[0] == names[1] and len(names[0]) == 1


def test_another_calibration_in_the_same_journal_is_a_study_of_its_own(place, tmp_path, blind, capsys):
    output, study = tmp_path / "mine.safetensors", str(tmp_path / "all.jsonl")
    for k in ("1", "2"):
        assert cli.main(command(place, output, "--study", study, "--k", k)) == cli.EXIT_REFUSED
    capsys.readouterr()
    assert cli.main(["show", study]) == 0
    printout = capsys.readouterr().out
    assert printout.count("3 trials finished (0 that could not be scored), 0 running, 0 lost") == 2
    assert printout.count("<- best") == 2
    assert printout.count(f"process {os.getpid()} on ") == 2
    assert '"k": 1.0' in printout and '"k": 2.0' in printout
    assert "prompts: 6" in printout


def test_a_stop_keeps_the_best_so_far(place, tmp_path, bright, monkeypatch, capsys):
    output, score = tmp_path / "mine.safetensors", ClipScorer.score
    scored = []

    def stopping(self, pictures, prompts):
        scored.append(len(prompts))
        if len(scored) == 6:
            raise KeyboardInterrupt
        return score(self, pictures, prompts)

    monkeypatch.setattr(ClipScorer, "score", stopping)
    assert cli.main(command(place, output, "--trials", "6", "--no-race", *FREELY)) == cli.EXIT_CANCELLED == 130
    preset = load_preset(output)
    assert preset.verdict == "not validated"
    assert preset.record["search JAQ"] >= preset.record["search JAQ of identity"]
    assert "not validated" in capsys.readouterr().err
    assert cli.main(command(place, output, "--trials", "6", "--no-race", *FREELY)) == cli.EXIT_ACCEPTED
    assert load_preset(output).verdict == "accepted as re-tuning"
    assert len(scored) == 6 + 2 + 2  # the running trial and the one after it, and the verdict


def test_a_second_set_of_prompts_is_for_the_verdict(place, tmp_path, options):
    (tmp_path / "more.csv").write_text("prompt\na ship\na lamp\n")
    cli.main(command(place, tmp_path / "mine.safetensors", "--verdict-prompts", str(tmp_path / "more.csv")))
    assert options["verdict_prompts"] == (6, 7)


BAD = {
    "no pipeline": (["run", "{place}/clip", "{rest}"], "'clip' is no diffusers pipeline."),
    "no prompts": (["--prompts", "{place}/nothing.txt"], "cannot read nothing.txt"),
    "few prompts": (["--prompts", "{place}/few.txt"], "2 prompts, at least 4 are needed."),
    "no metric": (["--metric", "nothing"], "'nothing' is no metric."),
    "reference": (["--reference", "w9a9"], "reference 'w9a9' is unknown."),
    "a coarse reference": (["--reference", "w4a16"], "reference w4a16 has fewer than 8 bits."),
    "itself": (["--format", "w8a8", "--reference", "w8a8"], "the reference is the model itself."),
    "itself in full": (["--format", "none", "--reference", "full"], "the reference is the model itself."),
    "output": (["--output", "mine.pt"], "'mine.pt' is no name for a preset."),
    "setting": (["--radius", "3"], "calibration setting radius is 3.0."),
    "format": (["--format", "w99"], "w99"),
    "no scheduler": (["--scheduler", "Nothing"], "diffusers has no scheduler 'Nothing'."),
    "memory": (["--scheduler", "DPMSolverMultistepScheduler"], "keeps copies of earlier steps"),
    "size": (["--size", "17x17"], "the pipeline refuses these settings."),
    "database": (["--study", "sqlite:////nowhere/at/all.db"], "no study can be kept at sqlite:"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_a_fix(place, tmp_path, blind, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    (place / "few.txt").write_text("one\ntwo\n")
    changed, text = BAD[case]
    changed = [part.format(place=place, rest="") for part in changed]
    argv = command(place, tmp_path / "mine.safetensors")
    argv = [*changed[:2], *argv[2:]] if changed[0] == "run" else [*argv, *changed]
    assert cli.main(argv) == cli.EXIT_BAD_INPUT == 2
    error = capsys.readouterr().err
    assert "Q-Sched: " in error
    assert text in error
    assert "Fix: " in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("argv", [[], ["dance"], ["run"], ["run", "x", "--steps", "0"], ["show"]], ids=" ".join)
def test_a_command_line_that_is_wrong_ends_with_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert "usage: python -m calibration" in capsys.readouterr().err


def test_show_names_what_is_missing(tmp_path, capsys):
    assert cli.main(["show", str(tmp_path / "none.jsonl")]) == cli.EXIT_BAD_INPUT
    assert "there is no journal 'none.jsonl'." in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("")
    assert cli.main(["show", str(tmp_path / "empty.jsonl")]) == cli.EXIT_BAD_INPUT
    assert "the storage holds no study." in capsys.readouterr().err


def test_sigterm_is_a_stop_like_ctrl_c(place, tmp_path, bright, monkeypatch, capsys):
    """What `python -m calibration` does before and after ``main``, in this process: another one imports for seconds."""
    output, score, count = tmp_path / "mine.safetensors", ClipScorer.score, itertools.count(1)

    def ending(self, pictures, prompts):
        if next(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self, pictures, prompts)

    monkeypatch.setattr(ClipScorer, "score", ending)
    monkeypatch.setattr(sys, "argv", ["calibration", *command(place, output, "--trials", "50", "--no-race", *FREELY)])
    handler = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the command does not take SIGTERM"))
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("calibration", run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == cli.EXIT_CANCELLED
    assert next(count) == 6
    assert capsys.readouterr().out.count("search: ") >= 4
    assert load_preset(output).verdict == "not validated"


def test_it_runs_from_a_checkout_and_its_exit_code_is_the_commands(tmp_path):
    argv = [sys.executable, "-m", "calibration", "show", str(tmp_path / "none.jsonl")]
    process = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.returncode == cli.EXIT_BAD_INPUT
    assert "there is no journal 'none.jsonl'." in process.stderr and "Traceback" not in process.stderr


def test_the_help_names_the_exit_codes(capsys):
    for argv in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(argv)
        printout = capsys.readouterr().out
        assert "exit codes:" in printout
        assert all(f"  {code} " in printout for code in (0, 2, 3, 130))


def _write_pipeline(folder: Path) -> None:
    """A Stable Diffusion of a few thousand weights, with a text encoder that spells."""
    import diffusers
    import transformers

    tiny = beside(__file__, "test_pipelines").stable_diffusion(diffusers, "EulerDiscreteScheduler")
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = {word: number for number, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    spelling = folder / "spelling"
    spelling.mkdir(parents=True)
    (spelling / "vocab.json").write_text(json.dumps(words))
    (spelling / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(spelling / "vocab.json"), str(spelling / "merges.txt"))
    tokenizer.model_max_length = 16
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(2)
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny.vae,
        unet=tiny.unet,
        scheduler=tiny.scheduler,
        text_encoder=transformers.CLIPTextModel(config).eval(),
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)


def _write_clip(folder: Path) -> None:
    import open_clip

    size = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": size, "text_cfg": text}
    folder.mkdir()
    torch.manual_seed(3)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": statistics}))
