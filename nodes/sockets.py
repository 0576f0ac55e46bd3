"""Our socket types and the names that many nodes share. Values that cross a socket are read by attribute, never by
``isinstance``: two copies of the pack must understand each other."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "Q-Sched"

PresetSocket = io.Custom("QSCHED_PRESET")
PlanSocket = io.Custom("QSCHED_PLAN")
PrecisionSocket = io.Custom("QSCHED_PRECISION")
ObservationSocket = io.Custom("QSCHED_OBSERVATION")
PromptsSocket = io.Custom("QSCHED_PROMPTS")
MetricSocket = io.Custom("QSCHED_METRIC")
CalibrationSettingsSocket = io.Custom("QSCHED_CALIBRATION_SETTINGS")
