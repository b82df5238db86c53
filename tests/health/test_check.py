"""Many processes' checks become one line that names the process, and the table has a remedy where one is needed."""

from w2sr_jax.health.check import FAIL, PASS, WARN, Check, difference, joined, table

WHO = ["process 0 (a)", "process 1 (b)", "process 2 (c)"]


def test_the_worst_process_decides_and_is_named():
    checks = [Check("disk", PASS, "9 GiB"), Check("disk", FAIL, "full", "free space"), Check("disk", WARN, "slow", "x")]
    assert joined(checks, WHO) == Check("disk", FAIL, "process 1 (b): full", "free space")
    assert joined(checks[:1], WHO[:1]) == checks[0]
    assert joined([checks[1], checks[0], checks[1]], WHO).found == "process 0 (a) and 1 more: full"
    assert joined([checks[0]] * 3, WHO) == Check("disk", PASS, "process 0 (a): 9 GiB; 2 more alike")


def test_a_difference_names_key_process_and_both_values():
    assert difference([{"a": "1"}, {"a": "1"}], WHO) == ""
    found = difference([{"a": "1", "b": "2"}, {"a": "1"}, {"a": "3", "b": "2"}], WHO)
    assert found == ("process 2 (c) has a 3, process 0 (a) has 1; process 1 (b) has b (not set), process 0 (a) has 2")


def test_the_table_shows_remedies_of_what_did_not_pass_only():
    text = table([Check("one", PASS, "fine", "nothing"), Check("second", FAIL, "broken", "mend it")])
    assert text.splitlines() == [
        "pass  one     fine",
        "FAIL  second  broken",
        "              -> mend it",
        "1 passed, 0 warnings, 1 failed",
    ]
