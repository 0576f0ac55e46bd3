"""What the package gives out: its ``__init__`` imports this file when the first name is asked for."""

from __future__ import annotations

from .objective import Objective, jaq
from .progress import Progress
from .result import OnReference, Result
from .search.trials import Trial
from .settings import Settings
from .study import calibrate
from .validate import Evaluation, Interval, evaluate, paired_gain
