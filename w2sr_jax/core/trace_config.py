"""Configs of the stages between distill and sft: filter, transform and score."""

import dataclasses

from w2sr_jax.core.config import DataConfig, MeshConfig, PriceConfig, opt
from w2sr_jax.core.errors import UsageError

HYGIENE_FLAGS = ("length_stop", "loop", "missing_box", "text_after_answer", "script_mixing", "url_or_html")
TRACE_ERRORS = ("slip", "answer", "drop", "shuffle", "rule")
TRACE_SCORES = ("random", "majority", "surprisal", "length", "steps", "consistency", "difficulty")
ENSEMBLES = ("mix", "majority", "agreement", "hygiene")


@dataclasses.dataclass(slots=True, kw_only=True)
class FilterConfig:
    """`w2sr filter`: traces graded and split into all, correct and incorrect."""

    problems: str = opt(help="the problems that the traces answer", reads=True)
    traces: str = opt(help="traces.jsonl of `distill`", reads=True)
    gates: tuple[str, ...] = opt((), "hygiene flags whose traces are left out of every subset")
    match_size: bool = opt(False, "draw correct and incorrect to one size")
    max_traces: int = opt(0, "draw every subset down to at most this size; 0 is no limit", minimum=0)
    seed: int = opt(0, "of the draws", minimum=0)
    contamination: tuple[str, ...] = opt(
        (), "benchmarks (bench:NAME or files) that traces are searched for", reads=True
    )
    contamination_words: int = opt(13, "length of the word n-grams that count as overlap", minimum=2)
    contamination_gate: bool = opt(False, "leave traces that overlap with a benchmark out of every subset")
    workers: int = opt(2, "grading processes", minimum=1)
    deadline_s: float = opt(10.0, "longest time for one response, in seconds", minimum=0.1)
    price: PriceConfig = opt(PriceConfig, "")

    def check(self) -> None:
        for gate in self.gates:
            if gate not in HYGIENE_FLAGS:
                raise UsageError(f"config.gates: {gate!r} is not a hygiene flag ({', '.join(HYGIENE_FLAGS)})")
        if self.contamination_gate and not self.contamination:
            raise UsageError("config.contamination_gate: needs config.contamination, the benchmarks to search for")


@dataclasses.dataclass(slots=True, kw_only=True)
class InjectConfig:
    """Errors that are put into traces."""

    kind: str = opt("slip", "what goes wrong, see traces/errors.py", choices=TRACE_ERRORS)
    rate: float = opt(1.0, "share of the traces that get one", minimum=0.0, maximum=1.0)
    carry: bool = opt(True, "slip, rule: what follows goes on from the wrong value (False: only that value is wrong)")
    modulus: int = opt(0, "values are taken modulo this, and keep their number of digits; 0 is ordinary", minimum=0)


@dataclasses.dataclass(slots=True, kw_only=True)
class SelectConfig:
    """Which traces are kept, by a score of each."""

    by: str = opt("random", "the score, see traces/selection.py", choices=TRACE_SCORES)
    keep: str = opt("highest", "scores that are kept", choices=("highest", "lowest", "middle"))
    size: int = opt(0, "traces kept, at most; 0 is all that qualify", minimum=0)
    only_correct: bool = opt(False, "choose among traces that are graded as right; the others still count in scores")
    min_agreement: float = opt(
        0.0,
        "majority: share of a problem's traces, those without an answer too, that must agree",
        minimum=0.0,
        maximum=1.0,
    )
    scores: str = opt("", "surprisal: scores.jsonl of `score`", reads=True)
    modulus: int = opt(0, "consistency: values are taken modulo this; 0 is ordinary", minimum=0)

    def check(self) -> None:
        if (self.by == "surprisal") != bool(self.scores):
            raise UsageError("config.select.scores: by=surprisal, and nothing else, needs scores.jsonl of `w2sr score`")


@dataclasses.dataclass(slots=True, kw_only=True)
class TransformConfig:
    """`w2sr transform`: traces in, traces out; between distill or filter and sft."""

    what: str = opt(
        "inject",
        "inject: errors; supervise: parts of traces, or solutions; ensemble: several teachers; select: by score",
        choices=("inject", "supervise", "ensemble", "select"),
    )
    traces: tuple[str, ...] = opt((), "files of traces; ensemble takes several, one a teacher", reads=True)
    problems: str = opt(
        "", "inject: the problems that the traces answer; solutions: a file with worked solutions", reads=True
    )
    seed: int = opt(0, "of every choice", minimum=0)
    inject: InjectConfig = opt(InjectConfig, "")
    supervise: str = opt(
        "answer_only",
        "answer_only; reasoning_only: without the final answer; solutions: of the problems' file, instead of traces",
        choices=("answer_only", "reasoning_only", "solutions"),
    )
    ensemble: str = opt("mix", "how one trace of several is taken, see traces/ensemble.py", choices=ENSEMBLES)
    select: SelectConfig = opt(SelectConfig, "")
    price: PriceConfig = opt(PriceConfig, "")

    def check(self) -> None:
        solutions = self.what == "supervise" and self.supervise == "solutions"
        if solutions == bool(self.traces):
            raise UsageError(
                "config.traces: a file of traces is needed, except for supervise=solutions, which has none"
            )
        if (solutions or self.what == "inject") and not self.problems:
            raise UsageError(f"config.problems: required for {'supervise=solutions' if solutions else 'what=inject'}")
        if self.what != "ensemble" and len(self.traces) > 1:
            raise UsageError(f"config.traces: {self.what} takes one file, got {len(self.traces)}")


@dataclasses.dataclass(slots=True, kw_only=True)
class ScoreConfig:
    """`w2sr score`: how surprising a model finds traces."""

    model: str = opt(help="the model that reads the traces, usually the student before training", reads=True)
    data: DataConfig = opt(DataConfig, "its batch_size is in traces; packing, overlong and seed are not looked at")
    dtype: str = opt("bfloat16", "of weights and activations", choices=("bfloat16", "float32"))
    loss_chunk: int = opt(512, "tokens per row whose logits exist at once", minimum=1)
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")
