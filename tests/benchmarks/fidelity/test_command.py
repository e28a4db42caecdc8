import json

import pandas as pd
import pytest

from benchmarks.fidelity import command
from jaxsim import InputError
from tests.factory import write_pack


@pytest.mark.slow
def test_the_command_writes_json_csv_and_html(people, tmp_path, capsys):
    folder = write_pack(people, tmp_path / "pack")
    files = {name: tmp_path / "out" / f"fidelity.{name}" for name in ("json", "csv", "html")}
    command.run_fidelity(str(folder), context=3, resamples=5, seed=2, quick=True, **files)
    result = json.loads(files["json"].read_text("utf-8"))
    assert (result["context"], result["resamples"], result["seed"]) == (3, 5, 2)
    assert "cold_items" not in result
    assert len(pd.read_csv(files["csv"])) > 100
    assert "<svg" in files["html"].read_text("utf-8")
    printed = capsys.readouterr().out
    assert "predicting" in printed
    assert "over bias" in printed


@pytest.mark.parametrize("option", ["json", "csv", "html"])
def test_a_folder_is_refused_before_any_work(tmp_path, option):
    with pytest.raises(InputError, match=f"--{option} .*: is a folder; give a file"):
        command.run_fidelity("no such dataset", **{option: tmp_path})


def test_settings_are_checked_before_the_dataset_is_read():
    with pytest.raises(InputError, match="--resamples is 0: give a whole number from 1"):
        command.run_fidelity("no such dataset", resamples=0)
