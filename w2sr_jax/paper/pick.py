"""From names to experiments: what the files of configs/paper/ are made of, and the variants that they offer."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from w2sr_jax.paper.experiment import OneTeacher, PaperExperiment, SeveralTeachers
from w2sr_jax.paper.models import QWEN_TEACHERS, STUDENTS, TEACHERS, structure_claim
from w2sr_jax.paper.pair import SAME_SIZE, PairExperiment

Make = Callable[..., PaperExperiment]
FROM, VERSUS = "-from-", "-vs-"


def for_student[Made: PaperExperiment](kind: type[Made], student: str, **values: Any) -> Made:
    """An experiment of this kind with a student's recipe (a key of STUDENTS) and further values."""
    return kind(**(dataclasses.asdict(STUDENTS[student]) | values))


def with_teachers(kind: type[SeveralTeachers], student: str, **values: Any) -> PaperExperiment:
    """The same of several teachers, who are asked with the prompt of Qwen; the ceiling is the published checkpoint."""
    qwen = QWEN_TEACHERS["7b"]
    apart = qwen.template != STUDENTS[student].template
    values = {"teacher_protocol": qwen.protocol if apart else "", "ceiling": "published"} | values
    return for_student(kind, student, **values)


def from_reasoner(kind: type[OneTeacher], student: str, teacher: str, **values: Any) -> PaperExperiment:
    """The same with a Reasoner (a key of TEACHERS) and what its prompt asks for."""
    chosen = TEACHERS[teacher]
    apart = chosen.template != STUDENTS[student].template
    taught = {
        "reasoner": chosen.reasoner,
        "teacher_template": chosen.template,
        "teacher_protocol": chosen.protocol if apart else "",
        "trace_tokens": chosen.trace_tokens,
    }
    return for_student(kind, student, **(taught | values))


def pair(student: str, teacher: str, rival: str = "", **values: Any) -> PaperExperiment:
    """The paper's experiment; `rival` (a key of TEACHERS with the same prompt) takes another Non-Reasoner."""
    one, other = TEACHERS[teacher], TEACHERS[rival or teacher]
    second = {
        "non_reasoner": other.non_reasoner,
        "structure_claim": structure_claim(teacher, rival) if other != one else SAME_SIZE,
        "trace_tokens": min(one.trace_tokens, other.trace_tokens),
    }
    return from_reasoner(PairExperiment, student, teacher, **(second | values))


def pairs(makers: Collection[str], teachers: Collection[str] = tuple(QWEN_TEACHERS)) -> tuple[str, ...]:
    """Names STUDENT-from-TEACHER, for `FILE.py:VARIANT`; each takes -vs-TEACHER at its end."""
    return tuple(f"{student}{FROM}{teacher}" for student in makers for teacher in teachers)


def pick_pair(
    variant: str | None, makers: Mapping[str, Make], teachers: Collection[str] = tuple(QWEN_TEACHERS)
) -> PaperExperiment:
    """The experiment of STUDENT[-from-TEACHER][-vs-NONREASONER].

    Without a teacher it is the one that the student's maker has as its default, without a variant the first student.

    Raises:
        ValueError: there is no such variant.
    """
    if variant is None:
        return next(iter(makers.values()))()
    models, versus, rival = variant.lower().partition(VERSUS)
    student, named, teacher = models.partition(FROM)
    if student in makers and not named:
        teacher = inspect.signature(makers[student]).parameters["teacher"].default
    # Both teachers are asked with one prompt.
    rivals = {key for key in teachers if teacher in teachers and TEACHERS[key].template == TEACHERS[teacher].template}
    if student not in makers or teacher not in teachers or (versus and rival not in rivals):
        names = ", ".join(pairs(makers, teachers))
        raise ValueError(f"no variant {variant!r}, only STUDENT[-from-TEACHER][-vs-TEACHER]: {names}")
    return makers[student](teacher, rival)


def pick(variant: str | None, makers: Mapping[str, Make]) -> PaperExperiment:
    """The experiment of NAME[/STUDENT[-from-TEACHER]]; without a variant, the first maker's default.

    Raises:
        ValueError: there is no such variant.
    """
    name, _, models = (variant or next(iter(makers))).lower().partition("/")
    student, _, teacher = models.partition(FROM)
    asked = [word for word in (student, teacher) if word]
    room = len(inspect.signature(makers[name]).parameters) if name in makers else 0
    if name not in makers or len(asked) > room or {student} - {"", *STUDENTS} or {teacher} - {"", *TEACHERS}:
        raise ValueError(
            f"no variant {variant!r}, only NAME[/STUDENT[-from-TEACHER]]: NAME {', '.join(makers)}; STUDENT "
            f"{', '.join(STUDENTS)}; TEACHER, where there is one, {', '.join(TEACHERS)}"
        )
    return makers[name](*asked)
