"""The published worked solutions, extracted and graded against the published answers by both graders.

The files are not part of the repository: the tests run where they are. AMC23 publishes no solutions, OlympiadBench has
tests of its own. One of AIME24's marks no answer; it ends in it (`last_side`), which says nothing to the extractor.
"""

import json
import os
import re
from pathlib import Path

import pytest

from w2sr_jax.data.tasks import load_problems
from w2sr_jax.grading.answers import extract
from w2sr_jax.grading.grade import grade_many
from w2sr_jax.grading.second import second_equal

FOLDER = Path(os.environ.get("W2SR_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))
NAMES = [name for name in ("aime24", "gsm8k", "math500", "minerva_math") if (FOLDER / f"{name}.jsonl").is_file()]
# Solutions that mark no answer and end in it: "$180 + 24 = 204$. -sepehr2010".
UNMARKED = {"aime24/60"}
FORMULAS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


# Solutions that agree with the published answer, of as many: all.
FIGURES = {"aime24": 30, "gsm8k": 1319, "math500": 500, "minerva_math": 272}


def solved(name):
    """(problem, worked solution) of every problem of a file."""
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
    texts = [row["answer"] if name == "gsm8k" else row["solution"] for row in rows]
    problems = load_problems(str(FOLDER / f"{name}.jsonl"))
    return list(zip(problems, ["\n".join(t) if isinstance(t, list) else t for t in texts], strict=True))


def last_side(solution):
    """The last side of a solution's last formula."""
    display, inline = FORMULAS.findall(solution)[-1]
    return re.split(r"=|\\equiv", display or inline)[-1].strip()


@pytest.mark.parametrize("name", NAMES)
def test_every_worked_solution_agrees_with_its_answer(name):
    pairs = solved(name)
    assert {problem.id for problem, solution in pairs if extract(solution) is None} == {
        identifier for identifier in UNMARKED if identifier.startswith(f"{name}/")
    }
    texts = [rf"\boxed{{{last_side(s)}}}" if problem.id in UNMARKED else s for problem, s in pairs]
    graded = grade_many([(t, problem.answer) for (problem, _), t in zip(pairs, texts, strict=True)], deadline_s=60.0)
    assert [problem.id for (problem, _), grade in zip(pairs, graded, strict=True) if not grade.correct] == []
    assert len(pairs) == FIGURES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_second_grader_agrees_too(name):
    marked = [(problem, answer) for problem, s in solved(name) if (answer := extract(s)) is not None]
    assert [p.id for p, answer in marked if not second_equal(answer, p.answer)] == []
