"""What is on this machine, and what is wrong with it."""

import json
import re
import tomllib

import jax
import pytest

from jaxsim import InputError, doctor
from jaxsim.dataset import dataset_path
from tests.factory import write_pack
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    return tmp_path / "cache"


def test_a_healthy_machine(dataset, tmp_path, capsys):
    write_pack(dataset, dataset_path("anime"))
    (dataset_path(".anime-unfinished")).mkdir()
    doctor.run_doctor(tmp_path / "doctor.json")
    state = json.loads((tmp_path / "doctor.json").read_text())
    assert state["problems"] == []
    assert state["versions"]["jax"] == jax.__version__
    assert [pack["name"] for pack in state["datasets"]] == ["anime"]
    assert state["devices"][0]["platform"] == jax.default_backend()
    out = capsys.readouterr().out
    assert "anime" in out
    assert out.endswith("no problems found\n")


def test_nothing_is_built(capsys):
    doctor.run_doctor()
    assert "no dataset is built: python -m prep build ml-100k" in capsys.readouterr().out


def test_what_is_wrong_is_a_line_and_an_exit_code(cache, dataset, monkeypatch, capsys):
    folder = dataset_path("anime")
    write_pack(dataset, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 999}))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    with pytest.raises(SystemExit) as stop:
        doctor.run_doctor()
    assert stop.value.code == 1
    problems = re.findall(r"^problem: (.*)$", capsys.readouterr().out, re.M)
    assert len(problems) == 2
    assert problems[0].startswith("there is an NVIDIA GPU, and JAX does not use it: pip install")
    assert "format_version 999" in problems[1]


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    problems = doctor.describe_machine()["problems"]
    assert any("set JAXSIM_CACHE_DIR" in line for line in problems)


def test_missing_extras_say_how_to_get_them(monkeypatch):
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == "openai" else find(name)
    )
    text = doctor.format_state(doctor.describe_machine())
    line = next(line for line in text.splitlines() if line.startswith("openai"))
    assert "missing: openai" in line
    assert 'pip install "jaxsim-recsys[openai]"' in line


def test_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = set(project["optional-dependencies"]) - {"test", "lint", "docs"}
    assert set(doctor.EXTRAS) == declared
    assert set(doctor._PURPOSES) == declared
    assert project["name"] == doctor.DISTRIBUTION


def test_json_must_be_a_file(tmp_path):
    with pytest.raises(InputError, match="is a folder; give a file"):
        doctor.run_doctor(tmp_path)
