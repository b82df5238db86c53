"""The open questions as one experiment: base models, teacher and ceiling are made once a seed and shared by all."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.references import map_strings, needed
from w2sr_jax.core.stage_config import Node, ReportConfig
from w2sr_jax.micro.experiment import MicroExperiment, shrink
from w2sr_jax.micro.questions import domains, ensembles, errors, family, filtering, supervision
from w2sr_jax.micro.questions.base import SHARED, Asked, Question, Section, shared

QUESTIONS: dict[str, Question] = {
    "errors": errors.question,
    "supervision": supervision.question,
    "ensembles": ensembles.question,
    "filtering": filtering.question,
    "family": family.question,
    "domains": domains.question,
}


@dataclasses.dataclass(slots=True, kw_only=True)
class QuestionsExperiment(MicroExperiment):
    """The questions' stages beside those of the micro experiment that they need, and one report at the end."""

    title: str = opt("Open questions of weak-to-strong reasoning, on the model organism", "of the report")
    questions: tuple[str, ...] = opt(tuple(QUESTIONS), "which, and in which order")

    stand_ins: dict[str, str] = opt(dict, "file below seedN/ -> another that is read in its place, see `variant_of`")

    def check(self) -> None:
        for name in self.questions:
            if name not in QUESTIONS:
                raise UsageError(f"config.questions: {name!r} is none of {', '.join(QUESTIONS)}")
        if not self.questions or not self.seeds:
            raise UsageError("config.questions, config.seeds: at least one of each is needed")

    def nodes(self) -> list[Node]:
        everything: list[Node] = []
        sections: dict[str, list[Section]] = {}
        for seed in self.seeds:
            asked = {name: question(self, seed) for name, question in QUESTIONS.items()}
            everything += self.seed_nodes(seed)
            for one in asked.values():
                everything += [Node(name=f"seed{seed}/{name}", stage=stage, config=c) for name, stage, c in one.parts]
            for section in self.sections(asked):
                report = section.report(self, seed)
                everything.append(Node(name=f"seed{seed}/report/{section.name}", stage="report", config=report))
                sections.setdefault(section.name, []).append(section)
        ends = []
        for name, (section, *_) in sections.items():
            reports = tuple(f"@seed{seed}/report/{name}" for seed in self.seeds)
            if len(reports) > 1:
                summary = ReportConfig(title=section.title, reports=reports, bootstrap=self.bootstrap)
                everything.append(Node(name=f"summary/{name}", stage="report", config=summary))
            ends.append((section.title, f"@summary/{name}" if len(reports) > 1 else reports[0]))
        book = ReportConfig(title=self.title, sections=dict(ends))
        everything.append(Node(name="report", stage="report", config=book))
        instead = {f"@seed{s}/{old}": f"@seed{s}/{new}" for s in self.seeds for old, new in self.stand_ins.items()}
        for node in everything:
            node.config = map_strings(node.config, lambda value: instead.get(value, value))
        return needed(everything, ["report"])  # other questions, the micro experiment's own report: not run here

    def sections(self, asked: dict[str, Asked]) -> list[Section]:
        """Those of the questions, and before them what they are compared with, where one of them is."""
        found = [section for name in self.questions for section in asked[name].sections]
        compared = any(section.arms.get("w2sr_p") == SHARED["w2sr_p"] for section in found)
        return [shared(), *found] if compared else found


def variant_of(variant: str | None, *questions: str) -> QuestionsExperiment:
    """What the config files of the questions return: seeds 0 to 2, "one" seed, or the "tiny" one of tests."""
    config = QuestionsExperiment(questions=questions, seeds=(0, 1, 2))
    if variant in ("one", "tiny"):
        config.seeds = (0,)
    elif variant is not None:
        raise ValueError(f"no variant {variant!r}, only one, tiny")
    if variant == "tiny":
        shrink(config)
        # Such models are hardly ever right.
        config.stand_ins = {"filter/correct.jsonl": "supervision/human_traces/traces.jsonl"} | {
            f"{node}/{subset}.jsonl": f"{node}/all.jsonl"
            for node in ("supervision/self_filter", "family/filter", "domains/filter")
            for subset in ("correct", "incorrect")
        }
    return config
