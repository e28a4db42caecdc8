"""Who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

import jaxsim
from tests.paths import ROOT


def imports(package: str) -> Iterator[tuple[str, str, list[str]]]:
    """(file, module, names taken from it) for every import below a package, lazy ones included."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name, []) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                yield path.name, node.module or "", [alias.name for alias in node.names]


def packages_imported_by(package: str) -> set[str]:
    return {module.partition(".")[0] for _, module, _ in imports(package)}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("jaxsim", {"agents", "prep", "benchmarks", "tests", "torch", "transformers"}),
        ("agents", {"prep", "benchmarks", "tests", "torch", "transformers"}),
        ("prep", {"agents", "benchmarks", "tests"}),
        ("benchmarks", {"tests"}),
    ],
)
def test_import_directions(package, forbidden):
    assert not packages_imported_by(package) & forbidden


def test_the_packages_are_seen_at_all():
    assert "jax" in packages_imported_by("jaxsim")
    assert {"jax", "jaxsim"} <= packages_imported_by("agents")
    assert "jaxsim" in packages_imported_by("prep")


def test_agents_take_public_names_only():
    names = (
        "chunking", "cli", "compilation_cache", "dataset", "departure", "explanation.taste_tables",
        "explanation.words", "files", "out_of_memory", "pages.charts", "pages.markup", "rewards", "settings",
        "tables", "taste_kernel",
    )  # fmt: skip
    shared = {f"jaxsim.{name}" for name in names}
    for file, module, names in imports("agents"):
        if module == "jaxsim":
            assert set(names) <= set(jaxsim.__all__), file
        assert module in {"jaxsim", *shared} or not module.startswith("jaxsim"), file


def test_public_names_exist():
    assert all(hasattr(jaxsim, name) for name in jaxsim.__all__)


# What JAX, flax and gymnax load is theirs (gymnax loads pandas and matplotlib). `import jaxsim` adds
# these alone, all small, so it takes hardly longer; other packages are loaded by what uses them.
ADDED = {
    "annotated_types", "chex", "cloudpickle", "farama_notifications", "gymnasium", "jaxsim", "platformdirs",
    "safetensors", "toolz", "typing_extensions",
}  # fmt: skip
PACKAGES_LOADED = """
import sys
def loaded():
    return {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
import jax, flax, gymnax
before = loaded()
import jaxsim
print(*loaded() - before)
import agents.commands
print(*loaded())
"""


def test_importing_loads_nothing_large():
    done = subprocess.run(
        [sys.executable, "-c", PACKAGES_LOADED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    by_jaxsim, in_all = (set(line.split()) for line in done.stdout.splitlines())
    assert "jaxsim" in by_jaxsim
    assert by_jaxsim <= ADDED
    assert not in_all & {"bokeh", "torch", "transformers", "prep"}
