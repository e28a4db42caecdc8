"""The structure of the code: no import circles, nothing too long, and a docstring for every public name."""

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxsim
from tests.paths import ROOT

PACKAGES = ("jaxsim", "agents", "prep", "benchmarks")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60
LONGER_FILES = {"prep/replies/parser.py": 510}
# Code that has still to be split.
LONG_FILES = {"prep/synthetic.py"}
LONG_FUNCTIONS = {"agents/algorithms/rollout.py: collect"}
IMPORT_CIRCLES: set[frozenset[str]] = set()


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in python_files(*PACKAGES)}


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Modules of this repository that a module imports, at its top or inside a function or an `if`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


def import_graph() -> dict[str, set[str]]:
    """The modules that each module imports."""
    graph = {}
    for name, path in MODULES.items():
        imports = set(imported_modules(ast.parse(path.read_text("utf-8"))))
        graph[name] = imports - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The groups of modules in which each one reaches every other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {frozenset(m for m in reach[n] if n in reach[m]) for n in graph if n in reach[n]}
    return groups


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {frozenset("bc")}
    assert circles({"a": {"b"}, "b": set()}) == set()


def test_there_are_no_import_circles():
    assert circles(import_graph()) <= IMPORT_CIRCLES


def test_no_file_is_too_long():
    lengths = {
        relative(path): len(path.read_text("utf-8").splitlines()) for path in MODULES.values()
    }
    too_long = {
        name for name, length in lengths.items() if length > LONGER_FILES.get(name, MAX_FILE_LINES)
    }
    assert too_long <= LONG_FILES


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and the length of each function, with its decorators and docstring."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield f"{relative(path)}: {node.name}", node.end_lineno - first + 1


def test_no_function_is_too_long():
    lengths = [pair for path in MODULES.values() for pair in functions(path)]
    assert {name for name, length in lengths if length > MAX_FUNCTION_LINES} <= LONG_FUNCTIONS


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public classes, functions and methods of a module without a docstring."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(ast.Module(node.body, []))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package):
    for path in python_files(package):
        tree = ast.parse(path.read_text("utf-8"))
        assert ast.get_docstring(tree) is not None or not tree.body, relative(path)
        assert list(undocumented(tree)) == [], relative(path)


def test_public_names_of_jaxsim_are_documented_and_few():
    assert len(jaxsim.__all__) <= 35
    for name in jaxsim.__all__:
        value = getattr(jaxsim, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_packages_that_are_installed_carry_their_types():
    for package in ("jaxsim", "agents", "prep"):
        assert (ROOT / package / "py.typed").is_file()
    assert {m.name for m in pkgutil.iter_modules([str(ROOT)]) if m.ispkg} >= set(PACKAGES)


def test_the_version_is_that_of_the_installed_distribution():
    assert jaxsim.__version__[0].isdigit()
