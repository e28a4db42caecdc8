"""What is around the package: containers, templates, citation."""

import importlib
import json
import re
import tomllib

import pytest

import jaxsim
from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_image_has_what_the_wheel_needs():
    """Every file that the build reads is copied, and none is kept out of the build's context."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    copied = set(" ".join(re.findall(r"^COPY (.*) \S+$", text, re.M)).split())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    packages = set(build["targets"]["wheel"]["packages"])
    assert copied == {"pyproject.toml", "constraints.txt", PROJECT["readme"], "LICENSE", *packages}
    allowed = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert {f"!{name}" for name in copied} < set(allowed)
    assert "--constraint constraints.txt" in text  # the tested versions


def test_the_container_for_development_is_valid():
    folder = ROOT / ".devcontainer"
    content = json.loads((folder / "devcontainer.json").read_text("utf-8"))
    # Keys of the specification of development containers; an editor ignores others without a word.
    assert set(content) == {"name", "build", "postCreateCommand", "customizations"}
    assert set(content["customizations"]["vscode"]) == {"extensions", "settings"}
    assert (folder / content["build"]["dockerfile"]).is_file()
    wanted = re.search(r"\[(.*)\]", content["postCreateCommand"]).group(1).split(",")
    assert set(wanted) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", ["bug", "question"])
def test_templates_of_issues_have_a_question(name):
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text("utf-8")
    for field in ("name:", "description:", "body:", "type: textarea"):
        assert field in text


def test_versions_agree():
    """In the package, in the citation, and in the changelog: its latest release has this version and date."""
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.*)$", text, re.M).group(1) == PROJECT["version"]
    # The second is what a source tells that is on the path, but was not installed.
    assert jaxsim.__version__ in (PROJECT["version"], "0+not.installed")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first, *releases = re.findall(r"^## (.*)$", changelog, re.M)
    assert first == "[Unreleased]"
    if releases:
        date = re.search(r"^date-released: (.*)$", text, re.M).group(1)
        assert releases[0] == f"[{PROJECT['version']}] - {date}"
        assert "Nothing has been released yet" not in changelog


def test_the_changelog_has_the_form_that_it_names():
    """Releases with their dates, the latest first; changes in the groups of Keep a Changelog."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    releases = re.findall(r"^## (.*)$", changelog, re.M)[1:]
    dates = [re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d)", line)[1] for line in releases]
    assert dates == sorted(dates, reverse=True)
    groups = set(re.findall(r"^### (.*)$", changelog, re.M))
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_can_be_read_by_tools():
    """The fields that the Citation File Format 1.2 asks for, and those that tools make BibTeX of."""
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "type"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    for entry in (citation["preferred-citation"], *citation["references"]):
        assert {"type", "title", "authors", "year"} <= set(entry)
        for author in entry["authors"]:
            assert "name" in author or {"family-names", "given-names"} <= set(author)
        assert re.fullmatch(r"10\.\d{4,}/\S+", entry["doi"])


def test_the_versions_of_python_are_those_that_the_pages_name():
    named = [
        line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line
    ]
    assert named == ["3.11", "3.12", "3.13"]
    for page in ("README.md", "CONTRIBUTING.md", "docs/install.md", "docs/getting_started.md"):
        assert "Python 3.11, 3.12 or 3.13" in (ROOT / page).read_text("utf-8"), page


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
