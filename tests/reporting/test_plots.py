"""What the figures of a report say."""

import re

import pytest

from tests.stages.results import experiment
from w2sr_jax.core.files import read_json
from w2sr_jax.reporting import book, plots
from w2sr_jax.reporting.figures import Bar, Drawing, drawn
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


def test_what_goes_beyond_the_axis_of_rgr_keeps_its_numbers_and_is_named(tmp_path):
    found = made(tmp_path)
    found["rgr"]["w2sr"]["micro"] = {"value": -4.0, "interval": [-9.0, -3.0]}
    with drawn():
        figure = plots.rgr_figure(found, "micro", "x")
    assert "<title>w2sr: -4.00 [-9.00, -3.00]</title>" in figure.svg
    assert "Cut off at -2 and 3: w2sr." in figure.about
    found["rgr"]["w2sr"]["micro"] = {"value": 0.5, "interval": [-2.0, 3.0]}
    with drawn():
        assert "Cut off" not in plots.rgr_figure(found, "micro", "x").about


def test_a_bar_beyond_what_is_shown_is_cut_off_there_without_an_end_of_its_interval():
    with drawn():
        drawing = Drawing(100)
        drawing.bars([Bar("a", 1.0, -50.0, 70.0, "base")], "x", str, (-2.0, 3.0))
    low, high = drawing.axes.get_xlim()
    assert -2.5 < low < -2
    assert 3 < high < 4
    assert [list(line.get_xdata()) for line in drawing.axes.lines] == [[-2.0, 3.0]]
    (label,) = drawing.axes.texts
    assert label.get_position()[0] == pytest.approx(3 + 0.02 * 5)


def test_a_name_that_looks_like_a_colour_or_an_id_stays_as_it_is():
    name = '#ffffff id="x"'
    with drawn():
        drawing = Drawing(100)
        drawing.bars([Bar(name, 1.0, 0.5, 1.5, "base")], "x", str)
        svg = drawing.svg("n", "t")
    assert f">{name}</text>" in svg
    assert "<title>#ffffff id=&quot;x&quot;: 1.0 [0.5, 1.5]</title>" in svg
    assert "var(--base)" in svg


def test_sections_of_several_benchmarks_are_all_named_above_their_students(tmp_path):
    found = made(tmp_path)
    sections = []
    for title, benchmark, size in (("one", "micro", 1e6), ("two", "letters", 2e6), ("three", "micro", 3e6)):
        arms = {arm: {benchmark: rows["micro"]} for arm, rows in found["arms"].items()}
        teachers = {"w2sr": {"model": "t", "parameters": size}}
        sections.append(found | {"title": title, "arms": arms, "teachers": teachers})
    (section,) = book.teacher_sizes({"sections": sections})
    assert section.parts[0].title == "Accuracy on micro, letters against the size of the teacher."
