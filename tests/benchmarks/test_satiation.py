"""The benchmark of satiation: the command on invented data, and what its tables say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import satiation
from jaxsim import InputError
from tests.factory import random_dataset

ROW = {"term": "same_category", "error": 0.05, "coefficient": -0.4, "low": -0.5, "high": -0.3}


@pytest.mark.slow
def test_the_command_writes_what_it_prints(monkeypatch, tmp_path, capsys):
    packed = random_dataset(0, num_users=40, num_items=200, max_sequence=30)
    entry = {**packed.manifest["taste"], "training": {"seed": 0}}
    packed = replace(packed, manifest={**packed.manifest, "taste": entry})
    monkeypatch.setattr(satiation, "load_dataset", lambda name: packed)
    out = tmp_path / "satiation.json"
    satiation.run_satiation(strengths=(0.0, 3.0), json=out)
    result = json.loads(out.read_text())
    printed = capsys.readouterr().out
    for line in satiation.format_satiation(result).splitlines():
        assert line in printed
    earned = {(row["satiation"], row["policy"]): row["a_rwd"] for row in result["sessions"]}
    assert set(earned) == {(s, p) for s in (0.0, 3.0) for p in satiation.POLICIES}
    assert earned[3, "random"] < earned[0, "random"]
    for row in result["sessions"]:
        assert 0 <= row["like_rate"] <= 1
        assert row["a_rwd_low"] <= row["a_rwd"] <= row["a_rwd_high"]
    with pytest.raises(InputError, match=r"^--repeats is 0: give a whole number from 1$"):
        satiation.run_satiation(repeats=0)


def test_tables_say_what_shows_satiation():
    rows = [
        {**ROW, "kept": True},
        {**ROW, "term": "keyword_similarity", "coefficient": 0.4, "kept": True},
        {**ROW, "term": "latest_same_category", "kept": False},
    ]
    fit = {"tables": {"raw": rows}, "shows": True, "interactions": 1000, "users": np.int64(9)}
    title, _, *lines = satiation.format_fit({"dataset": "x", "fit": fit}).splitlines()
    assert title == "x: 1,000 training labels of 9 users show satiation (raw)"
    assert [line.split("-0.300")[1].strip() for line in lines] == [
        "satiation",
        "the contrary",
        "dropped",
    ]
    none = {"dataset": "x", "fit": {"reason": "all times are equal"}}
    assert satiation.format_fit(none) == "x: no fit: all times are equal"
