"""Quantize Model W4A8: MODEL -> a smaller MODEL and a report; and that model as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ..qsched_core import PresetError
from ..qsched_core.choices import AUTO, MAX_RANK, QUALITIES, RECIPES
from ..qsched_core.coefficients import MAX_STEPS
from ..qsched_core.quant.formats import FORMATS
from .host.folders import MODELS_FOLDER, STOCK_FOLDER, file_names, file_path, shown_folder, unused_path
from .host.progress import layer_progress
from .host.reports import keep_output
from .quantization.group_sizes import GROUPS, group_size_input
from .sockets import CATEGORY, ObservationSocket, PlanSocket

AUTOMATIC_QUALITY = "auto"
"""The best quality that the plugged inputs allow."""

AUTOMATIC_STEPS = -1
"""As many last steps with finer activations as the format gains by."""


class QSchedQuantizeModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedQuantizeModel",
            display_name="Quantize Model W4A8",
            category=CATEGORY,
            description="Packs the layers of a loaded model into 4 or 8 bits. The given model stays as it is; "
            "LoRAs work before and after. Follow with Q-Sched Sampler, or JAQ Calibrate to get quality back.",
            search_aliases=[
                "quantize",
                "compress model",
                "smaller model",
                "shrink model",
                "low vram",
                "save memory",
                "int4",
                "int8",
                "fp8",
                "gguf",
                "w4a8",
                "4 bit",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model as it was loaded: FP16, BF16, FP32, or a file in fp8, mxfp8 or int8."
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="w4a8",
                    tooltip="Bits of weights (w) and activations (a). w4a8 is the paper's; w8a8 is nearly lossless; "
                    "w4a4 shows damage; w4a16 leaves activations alone.",
                ),
                group_size_input(),
                io.String.Input(
                    "include",
                    default="",
                    advanced=True,
                    tooltip="Only layers whose dotted name fits one of these patterns (fnmatch, comma separated). "
                    "Empty: every layer inside the repeated blocks.",
                ),
                io.String.Input(
                    "exclude",
                    default="",
                    advanced=True,
                    tooltip="Layers to leave alone (fnmatch, comma separated), for example *.ff.net.2*",
                ),
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES),
                    default="compact",
                    optional=True,
                    advanced=True,
                    tooltip="compact: convolutions too, which a U-Net is full of; the saved file needs this pack. "
                    "stock: Linear layers alone, in ComfyUI's own formats; the saved file loads without this pack.",
                ),
                io.Combo.Input(
                    "backend",
                    options=[AUTO, "kitchen", "torch", "quanto"],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="auto: the fastest here. kitchen: ComfyUI's native formats and kernels. torch: ours, "
                    "everywhere. quanto: optimum-quanto. The report says which was taken and why not another.",
                ),
                io.Combo.Input(
                    "scales",
                    options=["symmetric", "asymmetric"],
                    default="symmetric",
                    optional=True,
                    advanced=True,
                    tooltip="asymmetric: a minimum beside each scale, 2 bytes more a group. For skewed weights.",
                ),
                PlanSocket.Input(
                    "plan",
                    optional=True,
                    tooltip="From Quantization Sensitivity: which layer gets which format. Others get the one above.",
                ),
                ObservationSocket.Input(
                    "observation",
                    optional=True,
                    tooltip="From Observe Layers: weights are rounded so that what the layers see keeps its output.",
                ),
                io.Combo.Input(
                    "quality",
                    options=[AUTOMATIC_QUALITY, *QUALITIES],
                    default=AUTOMATIC_QUALITY,
                    optional=True,
                    tooltip="fast: rounds to nearest. fitted: rounds by the observation. best: also keeps a small "
                    "float part beside each Linear layer of ours, a tenth larger. auto: fitted where an observation "
                    "is plugged in, else fast.",
                ),
                io.Int.Input(
                    "last_steps",
                    default=AUTOMATIC_STEPS,
                    min=AUTOMATIC_STEPS,
                    max=MAX_STEPS,
                    optional=True,
                    advanced=True,
                    tooltip="So many of a picture's last steps run with 8-bit activations, from the same weights; most "
                    "of the damage is made there. -1: one step for w4a4, else none.",
                ),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=MAX_RANK,
                    step=8,
                    optional=True,
                    advanced=True,
                    tooltip="Of the float part beside each Linear layer of ours; it needs an observation. 8 to 64: "
                    "nearer with 4-bit activations, and larger. 0: 16 for quality best, else none.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The quantised model."),
                io.String.Output(
                    display_name="report", tooltip="What was quantised, what was kept and why, and the size."
                ),
                io.Model.Output(
                    display_name="reference",
                    tooltip="The given model in 8 bits, for JAQ Calibrate: half the memory, as good to compare with. "
                    "Made when it is first used.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        format,
        group_size,
        include,
        exclude,
        recipe="compact",
        backend=AUTO,
        scales="symmetric",
        plan=None,
        observation=None,
        quality=AUTOMATIC_QUALITY,
        last_steps=AUTOMATIC_STEPS,
        rank=0,
    ) -> io.NodeOutput:
        from .quantization.backends import job_for
        from .quantization.reference import reference_of
        from .quantization.twin_model import quantized_twin

        job = job_for(
            model,
            format,
            GROUPS[group_size],
            backend,
            recipe,
            symmetric=scales != "asymmetric",
            include=patterns_of(include),
            exclude=patterns_of(exclude),
            plan=plan,
            observation=observation,
            quality=None if quality == AUTOMATIC_QUALITY else quality,
            last_steps=None if last_steps == AUTOMATIC_STEPS else last_steps,
            rank=rank,
        )
        twin, report = quantized_twin(model, job, layer_progress(cls))
        return io.NodeOutput(twin, report.text(), reference_of(model), ui=keep_output(cls, {"text": [report.text()]}))


def patterns_of(text: str) -> list[str]:
    """Of a widget: separated by commas or lines."""
    return [pattern.strip() for pattern in text.replace("\n", ",").split(",") if pattern.strip()]


class QSchedSaveQuantized(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSaveQuantized",
            display_name="Save Quantized Model",
            category=CATEGORY,
            description="Writes a quantised model and its LoRAs, a quarter of the size. If it is in ComfyUI's own "
            f"formats alone, without LoRAs, to your {STOCK_FOLDER}, and it loads without this pack; else to your "
            f"folder of quantised models ({MODELS_FOLDER}), for Load Quantized Model. The file is loaded again and "
            "compared before it is called saved.",
            search_aliases=["save model", "export", "quantize", "int4", "w4a8", "checkpoint"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="From Quantize Model W4A8, with or without LoRAs."),
                io.String.Input("name", default="my model w4a8", tooltip="File name, without folder and suffix."),
            ],
            outputs=[
                io.String.Output(
                    display_name="file name", tooltip="As Load Diffusion Model or Load Quantized Model lists it."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, name) -> io.NodeOutput:
        from .quantization.file_values import is_native, is_stock
        from .quantization.files import save_model, save_stock

        stock = is_stock(model)
        folder, reader = (STOCK_FOLDER, "Load Diffusion Model") if stock else (MODELS_FOLDER, "Load Quantized Model")
        path = unused_path(folder, name)
        (save_stock if stock else save_model)(model, path)
        why = ""
        if is_native(model) and not stock:
            why = " ComfyUI's own formats have no place for the LoRAs on it."
        text = f"Saved {shown_folder(path.parent)}/{path.name}, {path.stat().st_size / 1e6:.1f} MB, for {reader}.{why}"
        return io.NodeOutput(path.name, ui=keep_output(cls, {"text": [text]}))


class QSchedLoadQuantized(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedLoadQuantized",
            display_name="Load Quantized Model",
            category=CATEGORY,
            description="Loads a model that Save Quantized Model wrote; the full-size model is not needed. The file is "
            "checked before anything is made of it.",
            search_aliases=["load model", "quantized", "int4", "w4a8", "unet loader", "low vram"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=file_names(MODELS_FOLDER),
                    tooltip=f"A file in your folder of quantised models ({MODELS_FOLDER}).",
                )
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The quantised model.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name) -> float | str:
        try:
            return file_path(MODELS_FOLDER, model_name).stat().st_mtime
        except (PresetError, OSError):
            return model_name

    @classmethod
    def execute(cls, model_name) -> io.NodeOutput:
        from .quantization.files import load_model

        return io.NodeOutput(load_model(file_path(MODELS_FOLDER, model_name)))


NODES = [QSchedQuantizeModel, QSchedSaveQuantized, QSchedLoadQuantized]
