"""What the figures of a report say."""

import re

from tests.stages.results import experiment
from w2sr_jax.core.files import read_json
from w2sr_jax.reporting import plots
from w2sr_jax.reporting.figures import drawn
from w2sr_jax.stages import report


def made(root):
    """report.json of the standard experiment, with an arm that another model taught."""
    config = experiment(root)
    config.arms["other"], config.routes["other"] = config.arms["w2sr"], config.routes["w2sr"]
    config.teachers = {"other": "Qwen/Qwen2.5-7B"}
    report.main(config, str(root / "report"))
    return read_json(root / "report" / "report.json")


def test_only_students_of_the_charged_teacher_have_a_hollow_point(tmp_path):
    found = made(tmp_path)
    with drawn():
        both = plots.cost_figure(found, "micro", "x")
        del found["ledger"]["with_teacher"]["w2sr"]
        none = plots.cost_figure(found, "micro", "x")
    dotted = [len(re.findall("stroke-dasharray: 1[.]1,", figure.svg)) for figure in (both, none)]
    assert dotted == [1, 0]
    assert "Hollow points" in both.about
    assert "Hollow points" not in none.about
