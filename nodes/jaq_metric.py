"""JAQ Metric: which text–image score and which quality score a calibration maximises, and what is shown beside them."""

from __future__ import annotations

from comfy_api.latest import io

from .calibrating.metric_menu import DEMO, metric_entries
from .host.reports import keep_output
from .sockets import CATEGORY, MetricSocket


class QSchedMetric(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedMetric",
            display_name="JAQ Metric",
            category=CATEGORY,
            description="Any text-image score (TC) with any quality score (IQ) for JAQ Calibrate, from your "
            "metrics folder (qsched_metrics). The paper: ln CLIPScore + CLIP-IQA for SD1.5; AQ-Map + HPSv2.1 for SDXL "
            "and FLUX.",
            search_aliases=[
                "metric",
                "clipscore",
                "clip score",
                "hpsv2",
                "pickscore",
                "aesthetic score",
                "image quality",
                "benchmark",
                "jaq",
                "calibrate",
            ],
            inputs=[
                io.Combo.Input("tc", options=[*metric_entries("tc"), DEMO], tooltip="Text-image compatibility."),
                io.Combo.Input("iq", options=[*metric_entries("iq"), DEMO], tooltip="Image quality."),
                io.Combo.Input(
                    "watch",
                    options=["none", *metric_entries("watch")],
                    advanced=True,
                    tooltip="One more that the search does not see: the verdict shows what JAQ was bought with.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="With clip_vision: TC is their CLIPScore, nothing is loaded."
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="The other half of the same CLIP model."),
                io.Image.Input(
                    "picture_set",
                    optional=True,
                    tooltip="Pictures that yours should be like, 8 or more: the verdict shows how far results are from "
                    "them as a set.",
                ),
            ],
            outputs=[
                MetricSocket.Output(display_name="metric", tooltip="For Calibration Settings."),
                io.String.Output(display_name="note", tooltip="Licences and sizes of what is loaded."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, tc, iq, watch, clip=None, clip_vision=None, picture_set=None) -> io.NodeOutput:
        from .calibrating.scorer import make_scorer

        scorer = make_scorer(tc, iq, watch, clip, clip_vision, picture_set)
        text = scorer.note or scorer.name
        return io.NodeOutput(scorer, scorer.note, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedMetric]
