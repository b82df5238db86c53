"""The embedded default: a model organism of weak-to-strong reasoning that needs no download and no accelerator.

    w2sr run --config=configs/experiments/micro.py --workdir=runs/micro             one seed
    w2sr run --config=configs/experiments/micro.py:five --workdir=runs/micro_five   seeds 0 to 4 and their summary

On two cores a seed takes 2 to 7 minutes. Expected, greedy test Pass@1, mean of five seeds (README, "Five seeds"):
base .168, forced .250, teacher .440, W2SR .513, W2SR-P .722, W2SR-N .458, controls .162 (taught by the
Non-Reasoner) and .209 (random digits), GRPO .854.

One to five operations modulo 100. Base models answer directly, and are right about one time in five. They have also
read worked answers, most of them in a sloppy style that does two operations in one's head: forcing worked mode helps
little, and RL has to find both the mode and the careful style, then to calculate better.

Greedy test Pass@1 of seed 100, on which everything below was chosen (by its validation problems): base .198, worked
mode forced .252, Reasoner teacher .406 (its base .096), W2SR .470, W2SR-P .616, W2SR-N .376, taught by the
Non-Reasoner .194, random digits .192. GRPO has .816 on validation after 60 of its steps.

Learning rates: of 3e-5, 6e-5, 1e-4, 1.5e-4, 3e-4 and 1e-3, W2SR, W2SR-P and W2SR-N all score highest at 1e-4; the two
controls never score above the base by more than noise at any of 3e-5, 1e-4 and 3e-4. GRPO of the student: 2e-4 (1e-4
is as good and slower, 5e-4 much worse); of the teacher: 2.5e-4 (1e-4 is slower, 5e-4 no better).
"""

from w2sr_jax.micro.experiment import MicroExperiment, shrink


def get_config(variant: str | None = None) -> MicroExperiment:
    """The experiment: one seed, "five" seeds, or a "tiny" one whose models learn nothing (for tests)."""
    config = MicroExperiment()
    if variant == "five":
        config.seeds = (0, 1, 2, 3, 4)
    elif variant == "tiny":
        shrink(config)
    elif variant is not None:
        raise ValueError(f"no variant {variant!r}, only five, tiny")
    return config
