"""What is around the package: containers, templates, citation."""

import importlib
import json
import re
import tomllib

import pytest

from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_image_has_what_the_wheel_needs():
    """Every file that the build reads is copied, and none is kept out of the build's context."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    copied = set(" ".join(re.findall(r"^COPY (.*) \S+$", text, re.M)).split())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    packages = set(build["targets"]["wheel"]["packages"])
    assert copied == {"pyproject.toml", PROJECT["readme"], "LICENSE", *packages}
    allowed = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert {f"!{name}" for name in copied} < set(allowed)
    jax = next(line for line in PROJECT["dependencies"] if line.startswith("jax>"))
    assert jax.removeprefix("jax") in text  # the same versions


def test_the_container_for_development_is_valid():
    folder = ROOT / ".devcontainer"
    content = json.loads((folder / "devcontainer.json").read_text("utf-8"))
    assert (folder / content["build"]["dockerfile"]).is_file()
    wanted = re.search(r"\[(.*)\]", content["postCreateCommand"]).group(1).split(",")
    assert set(wanted) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", ["bug", "question"])
def test_templates_of_issues_have_a_question(name):
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text("utf-8")
    for field in ("name:", "description:", "body:", "type: textarea"):
        assert field in text


def test_the_citation_has_the_version_of_the_package():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.*)$", text, re.M).group(1) == PROJECT["version"]


def test_the_command_exists():
    module, _, function = PROJECT["scripts"]["jaxsim"].partition(":")
    path = ROOT / (module.replace(".", "/") + ".py")
    assert f"def {function}(" in path.read_text("utf-8")


def test_every_page_is_in_the_site():
    """A page that no list names would be built, but nobody would find it."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    listed = set(re.findall(r"^([\w/-]+)$", index, re.M))
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    assert pages == {"index", *listed}


def test_functions_of_equations_exist():
    """Each name on the page of equations is one that can be imported."""
    names = re.findall(
        r"`((?:jaxsim|prep)(?:\.\w+)+)`", (ROOT / "docs" / "equations.md").read_text("utf-8")
    )
    assert len(names) > 6
    for name in names:
        module, _, function = name.rpartition(".")
        assert hasattr(importlib.import_module(module), function), name
