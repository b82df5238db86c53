"""Tables as CSV and LaTeX, and what keeps a page small and harmless."""

import csv
import io

import pytest

from w2sr_jax.reporting.export import as_csv, as_latex, escape_latex, write_page
from w2sr_jax.reporting.html import Folded, Note, Sample, Section, Table, Text, page

EVIL = '</pre><script>alert("x")</script>&<img src=x onerror=alert(1)>'


def test_csv_reads_back_and_is_never_a_formula():
    rows = [["arm", "Pass@1"], ['a, "b"\nc', "59.8 [55.5, 64.0]"], ["=cmd|' /C calc'!A0", "+1.5 [0.1, 2]"]]
    rows += [["@sum", "-"], ["-x", "-0.5"], ["\ttab", ""]]
    back = list(csv.reader(io.StringIO(as_csv(rows))))
    assert back[:2] == rows[:2]
    assert back[2:] == [["'=cmd|' /C calc'!A0", "+1.5 [0.1, 2]"], ["'@sum", "-"], ["'-x", "-0.5"], ["'\ttab", ""]]


@pytest.mark.parametrize(
    "cell", ["-1+cmd|' /C calc'!A0", "+1;=HYPERLINK(1)", "-1 [0, 1]+A1", "+", "-A1", "+.", "-5 apples"]
)
def test_what_only_begins_like_a_number_is_no_number(cell):
    assert list(csv.reader(io.StringIO(as_csv([[cell]])))) == [[f"'{cell}"]]


@pytest.mark.parametrize(
    "cell",
    [
        "-",
        "-5",
        "+1e-05",
        "-1,234.5",
        "-3.1 %",
        "+11.2 [+6.2, +16.0]",
        "-0.01 [-0.05, 0.02] for free",
        "+0.30 [-0.20, +0.70], not shown",
    ],
)
def test_numbers_of_our_tables_stay_numbers(cell):
    assert list(csv.reader(io.StringIO(as_csv([[cell]])))) == [[cell]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("w2sr_p & 50 %", r"w2sr\_p \& 50 \%"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a~b^c #1 $x$", r"a\textasciitilde{}b\textasciicircum{}c \#1 \$x\$"),
        ("59.8 ± 2.1", r"59.8 $\pm$ 2.1"),
        ("[1, 2]", "{}[1, 2]"),
        ("a\x00b\nc", "a b c"),
    ],
)
def test_latex_shows_every_character_as_itself(text, shown):
    assert escape_latex(text) == shown


def test_a_latex_table_has_the_lines_of_booktabs_and_as_many_columns():
    text = as_latex(Table([["a", "b", "c"], ["x & y", "1", "holds"]], text_columns=1, badge_column=2))
    assert "\\begin{tabular}{lrl}\n\\toprule\na & b & c \\\\\n\\midrule\nx \\& y & 1 & holds \\\\\n\\bottomrule" in text


def test_nothing_that_others_wrote_becomes_markup():
    parts = [
        Text(EVIL),
        Note(EVIL),
        Table([[EVIL, "x"], [EVIL, EVIL]], "t", EVIL, badge_column=1, dots={EVIL: "base"}),
        Sample(EVIL, EVIL, EVIL, EVIL, EVIL),
        Folded(EVIL, [Text(EVIL)]),
    ]
    found = page(EVIL, [Section(EVIL, [*parts, Section(EVIL, parts)], EVIL)], EVIL, EVIL)
    assert "<script" not in found
    assert "<img" not in found
    assert found.count("</pre>") == 2
    assert "default-src 'none'" in found


def test_headings_have_anchors_of_their_own():
    found = page("T", [Section("Same", []), Section("Same", [Section("Same", [])]), Section("!", [])])
    for name in ("same", "same-2", "same-3", "section"):
        assert found.count(f'id="{name}"') == 1
        assert f'href="#{name}"' in found


def test_a_page_that_would_be_too_large_loses_its_responses_and_says_so(tmp_path):
    samples = [Sample("right", "a", "", "x" * 5000) for _ in range(10)]
    inner = Section("Inner responses", samples, optional=True)
    sections = [
        Section("Results", [Table([["a"], ["b"]], "kept"), inner]),
        Section("Responses", samples, optional=True),
    ]
    whole = write_page(tmp_path, "T", sections, limit=10**6)
    assert "xxxxx" in whole
    small = write_page(tmp_path, "T", sections, limit=30_000)
    assert (tmp_path / "report.html").read_text() == small
    assert "xxxxx" not in small
    assert "Left out to keep the page below 0.0286 MiB: Responses, Inner responses (2 in all)." in small
    assert (tmp_path / "tables" / "kept.csv").read_text() == "a\nb\n"
    assert "\\toprule" in (tmp_path / "tables" / "kept.tex").read_text()
