"""What a user installs: every import is declared, and wheel and sdist work without the repository."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions

import pytest

from jaxsim.doctor import EXTRAS
from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OURS = ("jaxsim", "agents", "prep")
PLAY = """
import agents, jax, jaxsim, prep
env, params = jaxsim.make(jaxsim.load_dataset("synthetic"), history_length=10, session_capacity=20)
obs, state = env.reset(jax.random.key(0), params)
policy = agents.load("run")
action = policy(jax.random.key(1), obs, params)
assert env.action_mask(obs, params)[action]
"""
SMALL = "--synthetic.users 120 --synthetic.items 200 --synthetic.interactions-per-user 30 --taste.iterations 0"


# ---- imports -----------------------------------------------------------------------------------------------


def normalised(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-")


CORE = {normalised(line) for line in PROJECT["dependencies"]}
OPTIONAL = {
    normalised(line)
    for name, lines in PROJECT["optional-dependencies"].items()
    if name not in ("test", "lint", "docs")
    for line in lines
}


def imports(path):
    """(module, whether a module needs it to be loaded) of each import of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            yield name.partition(".")[0], id(node) not in guarded


def test_every_import_is_declared_and_optional_ones_are_not_needed_to_load():
    distributions = packages_distributions()
    for package in (*OURS, "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.stem == "foreign":  # steps other simulators, in environments of their own
                continue
            for name, needed in imports(path):
                if name in sys.stdlib_module_names or name in (*OURS, "benchmarks", "jaxlib"):
                    continue
                brought = {normalised(x) for x in distributions.get(name, [name])}
                declared = brought & CORE if needed else brought & (CORE | OPTIONAL)
                is_optional_file = path.stem in ("sb3", "sb3_agents", "sb3_network")
                assert declared or (is_optional_file and brought & OPTIONAL), (path.name, name)


def test_requirements_have_a_floor_and_a_ceiling_and_a_tested_version():
    pinned = {
        normalised(line) for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    }
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in (*PROJECT["dependencies"], *extras):
        if line.startswith("jaxsim-recsys["):
            continue
        assert ">=" in line, line
        assert "<" in line, line
        # torch has builds for each device.
        assert normalised(line) in pinned or normalised(line) == "torch", line


def test_modules_of_extras_are_those_that_they_bring():
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        lines = PROJECT["optional-dependencies"][extra]
        inner = re.findall(r"jaxsim-recsys\[([\w,]+)\]", " ".join(lines))
        for name in ",".join(inner).split(","):
            lines = [*lines, *PROJECT["optional-dependencies"].get(name, [])]
        # What an extra of a package brings is named in brackets: minari[hdf5] brings h5py.
        declared = {normalised(line) for line in lines} | ({"h5py"} if extra == "minari" else set())
        for module in modules:
            for distribution in distributions.get(module, [module]):
                assert normalised(distribution) in declared, (extra, module)


# ---- wheel and sdist ---------------------------------------------------------------------------------------


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A bare environment with the build backend, and the wheel and sdist that it made of the committed files."""
    if not (ROOT / ".git").exists():
        pytest.skip("there is no repository whose files could be packed")
    folder = tmp_path_factory.mktemp("distribution")
    run(sys.executable, "-m", "venv", "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    try:
        run(*pip, "hatchling>=1.26,<2", cwd=folder)
    except AssertionError:
        pytest.skip("the package index cannot be reached")
    # Not a clone, which git refuses where the repository belongs to another user.
    archive = ("archive", "--format=tar", "-o", folder / "source.tar", "HEAD")
    run("git", "-C", ROOT, "-c", "safe.directory=*", *archive, cwd=folder)
    with tarfile.open(folder / "source.tar") as files:
        files.extractall(folder / "source", filter="data")
    run(python, "-m", "hatchling", "build", "-d", folder / "dist", cwd=folder / "source")
    return folder, python, pip


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(built):
    folder, python, _ = built
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    run(python, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "again", cwd=source)
    contents = []
    for where in ("dist", "again"):
        (wheel,) = (folder / where).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            contents.append(
                {x.filename: x.CRC for x in archive.infolist() if "RECORD" not in x.filename}
            )
    assert contents[0] == contents[1]
    names = set(contents[0])
    assert {"prep/data/ml-100k/NOTICE", "jaxsim/console.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [x for x in names if x.startswith(("tests", "benchmarks", "notebooks", "docs"))]
    inside = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {"README.md", "LICENSE", "tests/conftest.py", "docs/index.md", "Makefile"} <= inside
    assert not [x for x in inside if "__pycache__" in x or x.startswith("benchmarks/results")]


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(built):
    """Build a dataset, train, load the policy and write a report, in a folder with nothing in it."""
    folder, python, pip = built
    (wheel,) = (folder / "dist").glob("*.whl")
    run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    place = folder / "place"
    place.mkdir()
    own = {"JAXSIM_CACHE_DIR": str(place / "cache")}
    jaxsim = python.parent / "jaxsim"
    assert "jaxsim-recsys" in run(jaxsim, "doctor", cwd=place, **own)
    run(jaxsim, "prep", "build", "synthetic", *SMALL.split(), cwd=place, **own)
    settings = "--total-steps 1024 --num-envs 8 --history-length 10 --session-capacity 20 --out run"
    run(jaxsim, "train", "dqn", "--dataset", "synthetic", *settings.split(), cwd=place, **own)
    run(python, "-c", PLAY, cwd=place, **own)
    run(jaxsim, "report", "run", "--out", "report.html", cwd=place, **own)
    assert "<html" in (place / "report.html").read_text("utf-8")
