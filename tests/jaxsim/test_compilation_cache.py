"""Compiled programs on disk: where they are kept, when not, and that nothing breaks them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from filelock import FileLock

from jaxsim import InputError
from jaxsim import compilation_cache as module
from jaxsim.compilation_cache import SWITCH, compiled_anew, machine_name, use_compilation_cache
from tests.paths import ROOT

NAMES = ("jax_compilation_cache_dir", *module._SETTINGS)
# A process that compiles a program, and prints how many it read and the bits of the result.
SCRIPT = """
import sys
from jaxsim.cli import main
import jax, jax.numpy as jnp
from jaxsim.compilation_cache import programs_read
def compute() -> None:
    @jax.jit
    def f(x):
        def step(c, _):
            c = jnp.sin(c @ c.T) + jnp.tanh(c)
            return c, c.sum()
        return jax.lax.scan(step, x, None, length=7)
    x = jax.random.normal(jax.random.key(0), (33, 33), jnp.float32)
    before = programs_read()
    print(before, jax.device_get(f(x))[1].tobytes().hex(), programs_read())
sys.argv[1:] = ["compute"]
main({"compute": compute}, "program", "Computes.")
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder, and JAX's settings as they were, before and after."""
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(SWITCH, raising=False)
    before = {name: jax.config.values[name] for name in NAMES}
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    module.compilation_cache.reset_cache()


def test_the_folder_is_below_the_cache_and_for_this_kind_of_cpu(cache):
    folder = use_compilation_cache()
    assert folder == cache / "compiled" / machine_name()
    assert folder.stat().st_mode & 0o077 == 0
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
    assert jax.config.values["jax_compilation_cache_max_size"] == module.MAX_BYTES
    assert use_compilation_cache() is None  # it is in use: a second call changes nothing
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)


def test_it_can_be_switched_off(cache, monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    assert use_compilation_cache() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert not cache.exists()
    monkeypatch.setenv(SWITCH, "no")
    with pytest.raises(InputError, match=f"{SWITCH} is 'no': give on or off"):
        use_compilation_cache()


def test_a_cache_of_the_user_s_own_is_left_alone(cache, tmp_path, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert use_compilation_cache() is None
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    assert use_compilation_cache() is not None
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == before


def test_a_folder_that_cannot_be_used_is_one_line_and_no_error(cache, capsys, monkeypatch):
    cache.write_text("a file is in the way")
    assert use_compilation_cache() is None
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {cache}")
    assert err.count("\n") == 1
    assert "set JAXSIM_CACHE_DIR" in err
    assert f"{SWITCH}=off" in err
    cache.unlink()
    (cache / "compiled" / machine_name()).mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 12345, raising=False)
    assert use_compilation_cache() is None  # another user's programs are not run
    assert "belongs to another user" in capsys.readouterr().err
    assert jax.config.values["jax_compilation_cache_dir"] is None


INTEL = "processor : 0\nmodel : 207\nflags : sse avx2 avx512f\ncpu MHz : 2300.0\n\nprocessor : 1\nflags : sse\n"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("2300.0", "1200.5"), True),
        (("processor : 1\nflags : sse", "processor : 1\nflags : other"), True),
        ((" avx512f", ""), False),
        (("207", "143"), False),
    ],
)
def test_another_cpu_has_another_folder(tmp_path, monkeypatch, change, same):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "_CPU_INFO", file)
    file.write_text(INTEL)
    first = machine_name()
    assert change[0] in INTEL
    file.write_text(INTEL.replace(*change))
    assert (machine_name() == first) == same
    file.unlink()  # a system without the file
    assert machine_name() != first


def test_another_number_of_cores_has_another_folder(monkeypatch):
    first = machine_name()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(99), raising=False)
    assert machine_name() != first


def test_what_an_interrupted_process_left_is_removed(cache):
    folder = cache / "compiled" / machine_name()
    folder.mkdir(parents=True, mode=0o700)
    for name in ("whole-cache", "whole-atime", "cut-cache", "empty-cache", "lonely-atime"):
        (folder / name).write_bytes(b"12345678")
    (folder / "empty-atime").touch()
    use_compilation_cache()
    left = {path.name for path in folder.iterdir()} - {".lockfile"}
    assert left == {"whole-cache", "whole-atime", "lonely-atime"}


def test_a_folder_that_another_process_has_locked_is_used_all_the_same(cache, monkeypatch):
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.01)
    folder = cache / "compiled" / machine_name()
    folder.mkdir(parents=True, mode=0o700)
    with FileLock(folder / ".lockfile"):
        assert use_compilation_cache() == folder


def test_a_block_can_compile_anew(cache):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    folder = use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    module.compilation_cache.reset_cache()
    x = jnp.arange(3.0)

    def compile_program() -> int:
        jax.jit(lambda x: jnp.cos(x) * 3).lower(x).compile()
        return len(list(folder.glob("jit__lambda*-cache")))

    with compiled_anew():
        assert compile_program() == 0
    assert compile_program() == 1
    read = module.programs_read()
    compile_program()
    assert module.programs_read() == read + 1
    with compiled_anew():
        compile_program()
    assert module.programs_read() == read + 1


def start(cache: Path, **changes: str) -> list[str]:
    """The words that a process with this cache prints; it must print no warning."""
    environment = {
        **os.environ, "JAXSIM_CACHE_DIR": str(cache), SWITCH: "on", "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **changes,
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.slow  # eight processes
def test_the_next_start_reads_what_the_first_has_compiled_with_the_same_bits(tmp_path):
    cache = tmp_path / "cache"
    _, without, read = start(cache, **{SWITCH: "off"})
    assert read == "0"
    assert not cache.exists()
    with ThreadPoolExecutor() as pool:  # two processes that write the same programs
        first = list(pool.map(lambda _: start(cache), range(2)))
    assert [bits for _, bits, _ in first] == [without] * 2
    with ThreadPoolExecutor() as pool:
        second = list(pool.map(lambda _: start(cache), range(2)))
    assert [bits for _, bits, _ in second] == [without] * 2
    assert all(int(after) > int(before) for before, _, after in second)
    # A damaged program is compiled again.
    for program in (cache / "compiled" / machine_name()).glob("jit_f-*-cache"):
        program.write_bytes(program.read_bytes()[:100])
    _, bits, _ = start(cache)
    assert bits == without


@pytest.mark.slow
def test_a_small_limit_removes_programs_and_breaks_nothing(tmp_path):
    cache = tmp_path / "cache"
    limit = {"JAX_COMPILATION_CACHE_MAX_SIZE": "9000"}
    bits = {start(cache, **limit)[1] for _ in range(2)}
    assert len(bits) == 1
    folder = cache / "compiled" / machine_name()
    assert sum(path.stat().st_size for path in folder.glob("*-cache")) <= 9000
