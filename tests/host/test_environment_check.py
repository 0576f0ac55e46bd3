"""Environment Check on the real host."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from scripts.client import PromptInterrupted

pytestmark = pytest.mark.usefixtures("one_thread")
FOREVER = 1e9


@pytest.fixture
def unmeasured(pack, monkeypatch):
    """The lines that are found at once."""
    for name in ("product_lines", "model_lines"):
        monkeypatch.setattr(pack("nodes.environment.sections"), name, lambda *arguments: [])


CHECK = {"1": {"class_type": "QSchedCheck", "inputs": {}}}


def metrics_line(lines: list[str]) -> str:
    (line,) = [line for line in lines if " metrics: " in line]
    return line


def test_the_report_names_this_host_and_its_folders_and_looks_again_each_time(server, host):
    first, *lines = server.client.run(CHECK, timeout=300)["1"]["text"][0].splitlines()
    assert first.startswith("Q-Sched 0.")
    assert all(line.split("  ")[0] in ("OK", "TO DO", "OPTIONAL") for line in lines)
    assert not [line for line in lines if "could not be checked" in line]
    text = "\n".join(lines)
    assert f"ComfyUI {host.version}, front end 1." in text
    assert "OK        device cpu, " in text
    assert f"presets: {server.base / 'models' / 'qsched_presets'}, " in text
    assert f"metrics: {server.base / 'models' / 'qsched_metrics'}, " in metrics_line(lines)
    assert "OK        studies are kept on this machine" in text
    assert "OK        torch on cpu: " in text
    assert "OK        w4a8 by torch: a LoRA has " in text
    # The same prompt is not answered from memory: it can be cancelled in the node. To its end it would take seconds.
    prompt = server.client.submit(CHECK)
    while server.client.history(prompt) is None:
        server.client.interrupt(prompt)
        time.sleep(0.05)
    with pytest.raises(PromptInterrupted, match="QSchedCheck"):
        server.client.wait(prompt)


def test_what_has_changed_since_is_in_the_next_report(pack, unmeasured, tmp_path, monkeypatch):
    import folder_paths

    node = pack("nodes.environment_check").QSchedCheck
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    for name in pack("nodes.host.folders").METRICS_FOLDER, "qsched_presets", "qsched_models", "qsched_text_encoders":
        folder_paths.folder_names_and_paths.pop(name, None)
    pack("nodes.host.folders").register_folders()
    before = metrics_line(node.execute().args[0].splitlines())
    place = tmp_path / "qsched_metrics" / "looked for"
    place.mkdir(parents=True)
    (place / "file").touch()
    assert metrics_line(node.execute().args[0].splitlines()) != before


def test_a_broken_engine_is_something_to_do(pack, monkeypatch, unmeasured):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setenv("QSCHED_STUDIES", "postgresql://me:s3cret@host/name")
    (text,) = pack("nodes.environment_check").QSchedCheck.execute().args
    assert "TO DO     optuna cannot be imported" in text
    assert "OK        studies are shared at postgresql://host/name" in text
    assert "s3cret" not in text


def test_an_engine_that_knows_no_constraints_is_something_to_do(pack, monkeypatch, unmeasured):
    """optuna 4: template 01 stopped in the middle, because its search is held to a reference."""
    for kind in pack("calibration.search.storage").import_optuna().Trial.__mro__:
        if "set_constraint" in vars(kind):
            monkeypatch.delattr(kind, "set_constraint")
    (text,) = pack("nodes.environment_check").QSchedCheck.execute().args
    (line,) = [line for line in text.splitlines() if "optuna is too old" in line]
    assert line.startswith("TO DO     ") and line.endswith("-m pip install --upgrade optuna")


def test_without_open_clip_no_metric_can_run_and_that_is_something_to_do(pack, monkeypatch, unmeasured):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (text,) = pack("nodes.environment_check").QSchedCheck.execute().args
    (line,) = [line for line in text.splitlines() if "no metric can run" in line]
    assert line.startswith("TO DO     ") and line.endswith("-m pip install --force-reinstall --no-deps open_clip_torch")


# --- ten seconds of measuring


@pytest.fixture
def quick(pack, monkeypatch):
    module = pack("nodes.environment.quick_check")
    monkeypatch.setattr(module, "WAYS", (("w4a8", "torch"),))
    return module


def model_lines(pack, quick, seconds: float = FOREVER) -> list:
    return list(quick.model_lines(pack("nodes.host.demo_model").load_model, quick.Deadline(seconds)))


def test_a_small_model_says_what_is_left_of_a_lora(pack, quick):
    (line,) = model_lines(pack, quick)
    assert line.state == "OK"
    assert line.text.startswith("w4a8 by torch: a LoRA has ")
    assert " of its memory" in line.text


def test_the_small_model_is_asked_at_a_sigma_that_its_schedule_has(pack, demo):
    from types import SimpleNamespace

    small = pack("nodes.environment.model_check").SmallModel(demo[0])
    calls = []
    network = SimpleNamespace(
        encode_adm=lambda **options: None,
        apply_model=lambda x, sigmas, **options: calls.append((x.shape, sigmas, sorted(options))),
    )
    small._call(SimpleNamespace(load_device="cpu", model=network))
    ((shape, sigmas, options),) = calls
    schedule = demo[0].get_model_object("model_sampling")
    assert schedule.sigma_min < sigmas.min() and sigmas.max() < schedule.sigma_max
    assert (len(sigmas), options) == (shape[0], ["c_crossattn"])


def test_a_lora_that_does_nothing_is_something_to_do(pack, quick, monkeypatch):
    """As one of 1 % did on packed codes that were rounded again."""
    layers = pack("nodes.quantization.layers")
    monkeypatch.setattr(layers.PatchedAtOutput, "_patches", lambda self, functions: None)
    (line,) = model_lines(pack, quick)
    assert line.state == "TO DO"
    assert "a LoRA has 0.00 of its effect" in line.text
    assert line.text.endswith("Send us this line.")


def test_what_is_tried_is_a_short_text_and_a_lora_of_the_share_that_is_asked_for(pack, demo):
    checks = pack("nodes.environment.model_check")
    small = checks.SmallModel(demo[0])
    assert (small.text.shape[:2], len(small.pooled), len(small.x)) == ((1, 16), 1, 4)
    lora_model = small.with_lora(demo[0], 0.01)
    assert len(lora_model.patches) > 10
    for key, ((strength, adapter, *_),) in lora_model.patches.items():
        up, down, alpha = adapter.weights[:3]
        assert (strength, alpha, up.shape[1], down.shape[0]) == (1.0, 16, 16, 16)
        norm = lora_model.get_model_object(key).float().norm()
        assert torch.isclose((up @ down).norm(), 0.01 * norm, rtol=1e-4)


def test_a_kernel_that_multiplies_wrongly_is_something_to_do(pack, quick, monkeypatch):
    core = pack("qsched_core.quant")
    backend = core.TorchBackend()
    (line,) = quick.product_lines([backend], quick.Deadline(FOREVER))
    assert (line.state, "21 products are right" in line.text) == ("OK", True)
    monkeypatch.setattr(core.QuantizedLinear, "forward", lambda self, x: torch.zeros(len(x), self.out_features))
    (line,) = quick.product_lines([backend], quick.Deadline(FOREVER))
    assert line.state == "TO DO"
    assert "w8a8/channel at 64 inputs errs by 1," in line.text


def test_when_the_time_is_over_it_says_what_was_not_tried(pack, quick, monkeypatch):
    monkeypatch.setattr(quick, "WAYS", (("w4a8", "torch"), ("w8a16", "torch")))
    first, rest = model_lines(pack, quick, 1e-9)
    assert first.text.startswith("w4a8 by torch: ")
    assert rest.state == "OPTIONAL"
    assert rest.text.startswith("no time was left to try w8a16 by torch")
    (line,) = quick.product_lines([pack("qsched_core.quant").TorchBackend()], quick.Deadline(1e-9))
    assert "the 1 products that there was time for" in line.text


def test_a_cancel_ends_the_check(pack, monkeypatch):
    """It is an Exception in hosts before 0.24, and was a finding like others."""
    check, stop = pack("nodes.environment_check"), type("Stop", (Exception,), {})
    monkeypatch.setattr(check, "InterruptProcessingException", stop)

    def cancelled(*arguments):
        raise stop

    monkeypatch.setattr(pack("nodes.environment.sections"), "product_lines", cancelled)
    with pytest.raises(stop):
        check.QSchedCheck.execute()
