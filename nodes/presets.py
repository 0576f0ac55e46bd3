"""Load and save presets: small files in ``models/qsched_presets`` that people share."""

from __future__ import annotations

import asyncio

from comfy_api.latest import io

from ..qsched_core import PresetError
from .host.folders import PRESETS_FOLDER, file_names, file_path, shown_folder, unused_path
from .host.reports import keep_output
from .sockets import CATEGORY, PresetSocket


class QSchedLoadPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedLoadPreset",
            display_name="Load Q-Sched Preset",
            category=CATEGORY,
            description="Loads coefficients that somebody calibrated. The file is checked before anything is used.",
            search_aliases=["preset", "load preset", "coefficients", "import", "qsched"],
            inputs=[
                io.Combo.Input(
                    "preset_name",
                    options=file_names(PRESETS_FOLDER),
                    tooltip=f"A file in your presets folder ({PRESETS_FOLDER}).",
                ),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="For Q-Sched Sampler."),
                io.String.Output(display_name="report", tooltip="What the preset was made for and what it gained."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def validate_inputs(cls, preset_name) -> bool | str:
        from ..qsched_core import load_preset

        try:
            # The host asks in the thread of its server, and a stranger's megabyte takes a part of a second.
            await asyncio.to_thread(lambda: load_preset(file_path(PRESETS_FOLDER, preset_name)))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, preset_name) -> float | str:
        try:
            return file_path(PRESETS_FOLDER, preset_name).stat().st_mtime
        except (PresetError, OSError):
            return preset_name

    @classmethod
    def execute(cls, preset_name) -> io.NodeOutput:
        from ..qsched_core import load_preset
        from .library.card import describe_preset

        preset = load_preset(file_path(PRESETS_FOLDER, preset_name))
        text = describe_preset(preset)
        return io.NodeOutput(preset, text, ui=keep_output(cls, {"text": [text]}))


class QSchedSavePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSavePreset",
            display_name="Save Q-Sched Preset",
            category=CATEGORY,
            description=f"Writes a preset to your presets folder ({PRESETS_FOLDER}), with a card for the sidebar "
            "and the workflow, which opens when the file is dropped on the canvas. A file of the same name is never "
            "overwritten.",
            search_aliases=["preset", "share", "export", "qsched"],
            is_output_node=True,
            inputs=[
                PresetSocket.Input("preset", tooltip="From JAQ Calibrate."),
                io.String.Input("name", default="my preset", tooltip="File name, without folder and suffix."),
                io.String.Input("author", default="", advanced=True, tooltip="Shown on the preset's card."),
                io.String.Input("license", default="CC0-1.0", advanced=True, tooltip="Under which you share it."),
                io.String.Input("notes", default="", multiline=True, advanced=True, tooltip="What others should know."),
                io.Image.Input(
                    "thumbnail",
                    optional=True,
                    tooltip="The picture on the preset's card. Of a batch the first two, before and after.",
                ),
                io.Boolean.Input(
                    "with_workflow",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Puts the workflow, with all its texts, into the file. Off: coefficients and card alone.",
                ),
            ],
            outputs=[io.String.Output(display_name="file name", tooltip="What Load Q-Sched Preset lists.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, preset, name, author, license, notes, thumbnail=None, with_workflow=True) -> io.NodeOutput:
        from .library.card import WORKFLOW_KEYS, make_card, thumbnail_uri, workflow_allowed, workflow_fields
        from .library.files import save_with_workflow

        picture = "" if thumbnail is None else thumbnail_uri(thumbnail)
        card_fields = {key: value for key, value in preset.card.items() if key not in WORKFLOW_KEYS}
        card = {**card_fields, **make_card(preset, name, author, license, notes, picture)}
        workflow = {}
        if with_workflow and cls.hidden is not None:
            workflow = workflow_fields((cls.hidden.extra_pnginfo or {}).get("workflow"), cls.hidden.prompt)
        path = unused_path(PRESETS_FOLDER, name)
        warning = save_with_workflow(preset, card, workflow, path)
        if with_workflow and not workflow_allowed():
            warning = "\nThe workflow is not in it: ComfyUI was started with --disable-metadata."
        text = f"Saved {shown_folder(path.parent)}/{path.name}{warning}"
        return io.NodeOutput(path.name, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedLoadPreset, QSchedSavePreset]
