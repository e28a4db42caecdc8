import io

import pandas as pd

from benchmarks.fidelity.long_table import COLUMNS, long_table


def cell(table: pd.DataFrame, group: str, model: str, metric: str) -> pd.Series:
    rows = table[(table.group == group) & (table.model == model) & (table.metric == metric)]
    assert len(rows) == 1, (group, model, metric)
    return rows.iloc[0]


def test_every_estimate_has_one_row(result):
    table = long_table(result)
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["group", "model", "metric"]).any()
    assert (table.split == "test").all()
    expected = {
        ("all", "paper", "auc"): result["auc"]["paper"],
        ("all", "paper", "ece"): result["ece"]["paper"],
        ("all", "real", "like_rate"): result["like_rate"]["real"],
        ("unrated items", "soft", "like_rate"): result["unrated_like_rate"]["soft"],
        ("history of 3", "bias", "auc"): result["contexts"][0]["auc"]["bias"],
        ("strictly earlier times", "f_sta", "auc"): result["strictly_earlier"]["auc"]["f_sta"],
        ("exchanged history", "f_sta", "auc_within_item"): result["controls"]["f_sta_exchanged"],
        ("keywords permuted", "f_mat", "auc"): result["controls"]["f_mat_permuted"],
        ("0 ratings of the item", "f_sim", "auc"): result["cold_items"]["f_sim"],
    }
    for key, estimate in expected.items():
        row = cell(table, *key)
        assert (row.value, row.low, row.high) == tuple(estimate.values())
    group = result["groups"][0]
    row = cell(table, f"{group['kind']}: {group['group']}", "paper", "like_rate_error")
    assert row.value == group["like_rate_error"]["paper"]["value"]


def test_it_is_read_back_as_it_was(result):
    table = long_table(result)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_a_value_that_is_not_defined_is_empty(result):
    nothing = {"value": None, "low": None, "high": None}
    changed = {**result, "auc": {**result["auc"], "paper": nothing}}
    row = cell(long_table(changed), "all", "paper", "auc")
    assert pd.isna([row.value, row.low, row.high]).all()
