"""Environment Check: what this ComfyUI has of what the pack can use, and what to do where something is missing."""

from __future__ import annotations

from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io

from .host.progress import NodeProgress, node_id
from .host.reports import keep_output
from .sockets import CATEGORY


class QSchedCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedCheck",
            display_name="Q-Sched Environment Check",
            category=CATEGORY,
            description="Looks at what this ComfyUI has: versions, device, the quantiser's backends, optional packages "
            "and folders, and tries the kernels and a small model for ten seconds. Each line says OK, what to do, or "
            "what is optional. Nothing is changed or sent anywhere.",
            search_aliases=["check", "doctor", "diagnose", "install", "version", "qsched"],
            is_output_node=True,
            inputs=[],
            outputs=[io.String.Output(display_name="report", tooltip="For a bug report: it holds folders' paths.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls) -> float:
        return float("nan")  # packages and folders change without the graph

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..qsched_core import environment
        from .environment.sections import sections

        progress = NodeProgress(node_id(cls), 100)
        # A cancel is an Exception in hosts before 0.24.
        text = environment.report(
            sections(lambda share: progress.update(round(100 * share), "multiplying and comparing")),
            cancels=(InterruptProcessingException,),
        )
        return io.NodeOutput(text, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedCheck]
