from benchmarks.fidelity.report import (
    format_report,
    format_summary,
    interval,
    number,
    ranked,
    with_interval,
)

NOTHING = {"value": None, "low": None, "high": None}
HALF = {"value": 0.5, "low": 0.25, "high": 0.75}


def test_estimates_as_text():
    assert (number(HALF), number(NOTHING), number(None)) == ("0.500", "-", "-")
    assert interval(HALF, "+.2f") == "+0.25 to +0.75"
    assert with_interval(HALF, ".2f") == "0.50 (0.25 to 0.75)"
    assert with_interval({**NOTHING, "value": 0.5}, ".1f") == "0.5"
    assert with_interval(None) == with_interval(NOTHING) == interval(NOTHING) == "-"


def test_names_without_a_value_come_last():
    values = {"none": NOTHING, "half": HALF, "one": {**HALF, "value": 1.0}}
    assert ranked(values) == ["one", "half", "none"]


def test_the_report_names_everything_that_was_measured(result):
    text = format_report(result)
    for name in result["auc"]:
        assert name in text
    for part in (
        f"over {result['reference']}",
        "AP of dislikes",
        "unrated items",
        "training ratings of the user",
        "category 0",
        "earlier times",
        "labels shuffled",
        "keywords permuted",
        "cold items",
    ):
        assert part in text, part
    assert all(f"note: {line}" in text for line in result["notes"])


def test_the_summary_is_narrow_enough_for_the_readme(result):
    text = format_summary(result)
    assert max(map(len, text.splitlines())) <= 120
    assert all(name in text for name in result["auc"])


def test_what_was_not_measured_is_not_mentioned(result):
    quick = {k: v for k, v in result.items() if not k.startswith("cold")}
    quick |= {"strictly_earlier": None, "unrated_like_rate": {}, "groups": [], "propensity": None}
    text = format_report(quick)
    for part in ("cold items", "earlier times", "unrated", "by group"):
        assert part not in text


def test_the_gain_by_keywords_has_a_table_of_its_own(result):
    row = result["cold_curve"][0]
    with_gain = {**result, "cold_curve": [{**row, "keyword_gain": {"taste": HALF}}]}
    assert "gain by keywords" in format_report(with_gain)
    assert "0.500 (0.250 to 0.750)" in format_report(with_gain).split("gain by keywords")[1]
