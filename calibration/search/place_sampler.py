"""A sampler for optuna that asks another one for every trial, by the trial's place in the search."""

from __future__ import annotations

from collections.abc import Sequence

from ..settings import Settings
from .space import Space
from .storage import import_optuna
from .strategies import fresh, sampler_for
from .trials import ORDER, POINT, WORKER, Trials


class Proposals:
    """Gives each trial that begins its place and its point."""

    def __init__(self, space: Space, settings: Settings, fixed: Sequence[dict[str, float]]):
        """``fixed``: the points of the first places. ``trials`` and ``worker`` are set by the search, once the study is
        open and once this process is in its list."""
        self.space, self.settings, self.fixed = space, settings, fixed
        self.trials: Trials | None = None
        self.worker = ""
        self.place = 0

    def sign(self, study, trial) -> None:
        """Signed before the point is thought about, which may take seconds: a worker that dies meanwhile is known, and
        others take other places."""
        study._storage.set_trial_user_attr(trial._trial_id, WORKER, self.worker)
        self.place = self.trials.free_place(trial.number)
        study._storage.set_trial_user_attr(trial._trial_id, ORDER, self.place)

    def inner_sampler(self):
        return sampler_for(self.place, self.space, self.settings, self.fixed)

    def new_point(self, study, trial, point: dict[str, float]) -> dict[str, float]:
        """The point, or one near the best where it has been tried already, or is being tried by another worker.

        Two workers that know the same trials are given one point. Each writes its own down before it looks at the
        others', so at least one of the two sees the other's.
        """
        if set(point) != set(self.space.axes):
            return point
        study._storage.set_trial_user_attr(trial._trial_id, POINT, point)
        others = [other for other in self.trials.running() if other.number != trial.number]
        points = [other.point for other in self.trials.finished()]
        points += [other.user_attrs[POINT] for other in others if POINT in other.user_attrs]
        earlier = [tuple(other[axis] for axis in self.space.axes) for other in points]
        best = self.trials.best()
        best_point = best.point if best else self.space.identity()
        return fresh(point, earlier, best_point, self.space, self.settings.seed, self.place)


def sampler_by_place(proposals: Proposals):
    base = import_optuna().samplers.BaseSampler

    class PlaceSampler(base):
        def before_trial(self, study, trial):
            proposals.sign(study, trial)

        def infer_relative_search_space(self, study, trial):
            self.inner = proposals.inner_sampler()
            return self.inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study, trial, search_space):
            point = self.inner.sample_relative(study, trial, search_space)
            return proposals.new_point(study, trial, point)

        def sample_independent(self, study, trial, name, distribution):
            return self.inner.sample_independent(study, trial, name, distribution)

    return PlaceSampler()
