"""Load and save presets: small files in ``models/qsched_presets`` that people share."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui

from ..qsched_core import PresetError, load_preset, save_preset
from .folders import FOLDER, file_names, file_path, unused_path
from .sockets import CATEGORY, PresetSocket


class QSchedLoadPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedLoadPreset",
            display_name="Load Q-Sched Preset",
            category=CATEGORY,
            description="Loads coefficients that somebody calibrated. The file is checked before anything is used.",
            search_aliases=["preset", "coefficients", "qsched"],
            inputs=[
                io.Combo.Input("preset_name", options=file_names(FOLDER), tooltip=f"A file in models/{FOLDER}."),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="For Q-Sched Sampler."),
                io.String.Output(display_name="report", tooltip="What the preset was made for and what it gained."),
            ],
        )

    @classmethod
    def validate_inputs(cls, preset_name) -> bool | str:
        try:
            load_preset(file_path(FOLDER, preset_name))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, preset_name) -> float | str:
        try:
            return file_path(FOLDER, preset_name).stat().st_mtime
        except (PresetError, OSError):
            return preset_name

    @classmethod
    def execute(cls, preset_name) -> io.NodeOutput:
        preset = load_preset(file_path(FOLDER, preset_name))
        text = describe_preset(preset)
        return io.NodeOutput(preset, text, ui=ui.PreviewText(text))


class QSchedSavePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSavePreset",
            display_name="Save Q-Sched Preset",
            category=CATEGORY,
            description=f"Writes a preset to models/{FOLDER}. A file of the same name is never overwritten.",
            search_aliases=["preset", "share", "export", "qsched"],
            is_output_node=True,
            inputs=[
                PresetSocket.Input("preset", tooltip="From JAQ Calibrate."),
                io.String.Input("name", default="my preset", tooltip="File name, without folder and suffix."),
                io.String.Input("author", default="", advanced=True, tooltip="Shown on the preset's card."),
                io.String.Input("license", default="CC0-1.0", advanced=True, tooltip="Under which you share it."),
                io.String.Input("notes", default="", multiline=True, advanced=True, tooltip="What others should know."),
            ],
            outputs=[io.String.Output(display_name="file name", tooltip="What Load Q-Sched Preset lists.")],
        )

    @classmethod
    def execute(cls, preset, name, author, license, notes) -> io.NodeOutput:
        card = {
            "modelspec.title": name.strip(),
            "modelspec.author": author,
            "modelspec.license": license,
            "modelspec.description": notes or describe_preset(preset).splitlines()[0],
            "modelspec.architecture": preset.binding.model,
            "modelspec.tags": "q-sched",
        }
        path = unused_path(FOLDER, name)
        save_preset(replace(preset, card={**preset.card, **{k: v for k, v in card.items() if v}}), path)
        return io.NodeOutput(path.name, ui=ui.PreviewText(f"Saved models/{FOLDER}/{path.name}"))


def describe_preset(preset) -> str:
    """A preset in a few lines for a person."""
    bound = preset.binding
    lines = [
        f"{preset.card.get('modelspec.title') or 'Q-Sched preset'}: {preset.steps} steps, {preset.verdict}",
        f"model {bound.model or 'any'}, quantisation {bound.quantization or 'any'}, "
        f"{bound.sampler or 'any sampler'} / {bound.scheduler or 'any scheduler'}, cfg {bound.cfg:g}",
        "c_x   " + "  ".join(f"{value:.3f}" for value in preset.coefficients.c_x),
        "c_eps " + "  ".join(f"{value:.3f}" for value in preset.coefficients.c_eps),
    ]
    gain = preset.record.get("gain")
    if isinstance(gain, dict) and all(isinstance(gain.get(key), (int, float)) for key in ("gain", "low", "high")):
        lines.append(f"held-out JAQ gain {gain['gain']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]")
    return "\n".join(lines)


NODES = [QSchedLoadPreset, QSchedSavePreset]
