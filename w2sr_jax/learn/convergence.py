"""When GRPO has converged: the stop rule on validation scores."""

from __future__ import annotations

import dataclasses

ROUNDING = 1e-9  # 0.3 is a gain of 0.1 over 0.2


@dataclasses.dataclass(slots=True)
class Convergence:
    """No gain of `min_gain` in validation Pass@1 for `patience` validations, or `target` reached.

    Args:
        min_gain: smaller gains do not count, but add up: they are measured from the score of the last one that did.
        patience: validations in a row without such a gain.
        target: stop at this score; 0 is off.
        best: the highest score so far.
        mark: the score that a gain is measured from.
        stale: validations since the last gain.
    """

    min_gain: float
    patience: int
    target: float = 0.0
    best: float = -1.0
    mark: float = -1.0
    stale: int = 0

    def see(self, score: float) -> bool:
        """Takes the next score; True if it is the best so far."""
        # A score that is no higher is no gain, even where min_gain is 0.
        if score > self.mark and score - self.mark >= self.min_gain - ROUNDING:
            self.mark, self.stale = score, 0
        else:
            self.stale += 1
        improved = score > self.best
        self.best = max(self.best, score)
        return improved

    @property
    def done(self) -> bool:
        return self.stale >= self.patience or bool(self.target and self.best >= self.target)
