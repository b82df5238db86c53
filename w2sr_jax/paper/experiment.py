"""An experiment of the paper: students that learn from traces, the base and the ceiling, all evaluated alike."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.references import needed
from w2sr_jax.core.stage_config import Node, ReportConfig
from w2sr_jax.core.trace_config import SelectConfig, TransformConfig
from w2sr_jax.paper.recipe import Recipe

Claims = dict[str, tuple[str, str]]  # sentence -> (higher arm, lower arm)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a student learns from."""

    traces: str  # '@NODE/FILE'
    teacher: str = ""  # the one model that wrote them, whose size the report shows
    problems: str = ""  # that they answer, where these are not the experiment's


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What differs from one experiment to the next."""

    title: str
    made: list[Node]  # of the traces
    arms: dict[str, Arm]
    claims: Claims
    teachers: dict[str, str]  # name -> model, evaluated beside the students
    name: str = ""  # behind "report" in the report's node: several may share a workdir


@dataclasses.dataclass(slots=True, kw_only=True)
class PaperExperiment(Recipe):
    """Subclasses ask a question; nodes of one name are the same in all of them, so that a workdir may be shared."""

    def question(self) -> Question:
        raise NotImplementedError

    def nodes(self) -> list[Node]:
        asked = self.question()
        students = [Node(name=n, stage="sft", config=self.sft(a.traces, a.problems)) for n, a in asked.arms.items()]
        trained = self.ceiling == "train"
        grpo = [Node(name="grpo", stage="grpo", config=self.grpo())] if trained else []
        ceiling = ("grpo", "@grpo/export") if trained else ("grpo_published", self.published_ceiling)
        models = {  # arm -> name of its evaluations' nodes, model
            "base": ("base", self.student),
            **{name: (name, model) for name, model in asked.teachers.items()},
            **{arm: (arm, f"@{arm}/export") for arm in asked.arms},
            "grpo": ceiling,
        }
        before = [*asked.made, *students, *grpo]
        evaluations: list[Node] = []
        results: dict[str, tuple[str, ...]] = {}
        for arm, (name, model) in models.items():
            protocol = (self.teacher_protocol if arm in asked.teachers else "") or self.protocol
            configs = [self.evaluate(model, source, protocol) for source in self.benchmarks]
            nodes = [Node(name=f"eval/{name}/{n}", stage="evaluate", config=c) for n, c in enumerate(configs)]
            evaluations += nodes
            results[arm] = tuple(f"@{node.name}" for node in nodes)
        report = self._report(asked, results, before)
        return [*before, *evaluations, Node(name=f"report{asked.name}", stage="report", config=report)]

    def _report(self, asked: Question, results: dict[str, tuple[str, ...]], before: list[Node]) -> ReportConfig:
        trained = {node.name: None for node in before if node.stage in ("sft", "grpo")}
        apart = bool(self.teacher_protocol) and self.teacher_protocol != self.protocol
        claims = {
            sentence: pair for sentence, pair in asked.claims.items() if not (apart and set(pair) & set(asked.teachers))
        }
        return ReportConfig(
            title=asked.title,
            arms=results,
            baselines=tuple(asked.teachers) if apart else (),  # they answer another prompt: shown, not compared
            routes={arm: tuple(f"@{node.name}" for node in needed(before, [arm])) for arm in trained},
            teachers={"base": self.student, **{n: arm.teacher for n, arm in asked.arms.items() if arm.teacher}},
            published=self.published,
            trace_sets={name: arm.traces for name, arm in asked.arms.items()},
            problems=self.problems,
            claims=claims,
            bootstrap=self.bootstrap,
            seed=self.seed,
        )

    def taught_by(self, model: str, prefix: str = "", samples: int = 1, template: str = "") -> list[Node]:
        """A model's traces, and the same graded: nodes PREFIXtraces and PREFIXfilter."""
        written = self.distill(model, template or self.teacher_template, samples)
        graded = self.filter(f"@{prefix}traces/traces.jsonl")
        return [
            Node(name=f"{prefix}traces", stage="distill", config=written),
            Node(name=f"{prefix}filter", stage="filter", config=graded),
        ]

    def selected(self, name: str, traces: str, select: SelectConfig) -> Node:
        """Some of a file of traces, as node NAME."""
        config = TransformConfig(what="select", traces=(traces,), select=select, seed=self.seed, price=self.price)
        return Node(name=name, stage="transform", config=config)


@dataclasses.dataclass(slots=True, kw_only=True)
class OneTeacher(PaperExperiment):
    """Experiments that start from the traces of one Reasoner."""

    reasoner: str = opt(help="the teacher after RL")


@dataclasses.dataclass(slots=True, kw_only=True)
class SeveralTeachers(PaperExperiment):
    """Experiments with a student of each of several teachers: arm NAME learns from node NAME_filter."""

    teachers: tuple[str, ...] = opt((), "each NAME=MODEL; MODEL is a hub id or a directory")

    def check(self) -> None:
        PaperExperiment.check(self)
        names = [entry.partition("=")[0] for entry in self.teachers]
        if not self.teachers or not all("=" in entry for entry in self.teachers) or len(set(names)) < len(names):
            raise UsageError(f"config.teachers: expected NAME=MODEL of each, every name once, got {self.teachers}")

    def by_name(self) -> dict[str, str]:
        """Name of a teacher -> its model."""
        return {name: model for name, _, model in (entry.partition("=") for entry in self.teachers)}

    def alone(self) -> tuple[list[Node], dict[str, Arm]]:
        """The nodes of every teacher's traces, and a student of each."""
        made: list[Node] = []
        for name, model in self.by_name().items():
            made += self.taught_by(model, f"{name}_")
        arms = {n: Arm(traces=f"@{n}_filter/all.jsonl", teacher=model) for n, model in self.by_name().items()}
        return made, arms
