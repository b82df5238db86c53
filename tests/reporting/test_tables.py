"""Cells and Markdown tables."""

import pytest

from w2sr_jax.reporting import samples, tables


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1234, "1.23k"),
        (9e5, "900k"),
        (2.5e9, "2.5G"),
        (4e21, "4e+03E"),
        (999_499, "999k"),
        (999_999, "1M"),
        (999.9e6, "1G"),
        (999.9, "1k"),
        (-999_999, "-1M"),
        (0.012346, "0.0123"),
    ],
)
def test_quantities_have_three_digits_and_a_unit(value, text):
    assert tables.quantity(value) == text


def test_columns_line_up_and_bars_are_escaped():
    text = tables.markdown_table([["a", "long head"], ["x | y", "1\n2"]])
    assert text.splitlines() == [
        "| a      | long head |",
        "|--------|-----------|",
        "| x \\| y | 1 2       |",
    ]


def test_an_rgr_cell_says_undefined():
    assert tables.rgr({"undefined": "why"}) == "undefined"
    assert tables.rgr({"value": 0.8, "interval": [0.7, 0.912]}) == "0.80 [0.70, 0.91]"


def test_a_ratio_shows_its_range_over_seeds_only_where_there_is_one():
    ledger = {"ratios": {"a": {"x": 2.0, "y": 3.0, "z": None}}}
    assert tables.ratio(ledger, "a", "x") == "2x"
    assert tables.ratio(ledger, "a", "z") == "-"
    ledger["ratio_ranges"] = {"a": {"x": [1.5, 2.5], "y": [3.0, 3.0]}}
    assert tables.ratio(ledger, "a", "x") == "2x (1.5 to 2.5)"
    assert tables.ratio(ledger, "a", "y") == "3x"


def test_a_long_response_keeps_its_beginning_and_its_end():
    text = samples.shorten("a" * 5000 + "b" * 5000)
    assert text.startswith("aaa")
    assert text.endswith("bbb")
    assert "[... 8,800 characters ...]" in text
    assert samples.shorten("short") == "short"
