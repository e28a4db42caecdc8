"""A device without memory is one line that says what to lower."""

import jax
import pytest

import jaxsim
from agents.runs import training
from jaxsim import InputError, factory
from jaxsim.cli import main
from jaxsim.out_of_memory import advice_if_out_of_memory, is_out_of_memory
from tests.agents.runs.training_process import walk

DEVICE = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.50GiB."
HOST = "RESOURCE_EXHAUSTED: Out of memory allocating 4000000 bytes."


def fail(*args, **kwargs):
    raise jax.errors.JaxRuntimeError(DEVICE)


def test_which_errors_are_meant():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(jax.errors.JaxRuntimeError(DEVICE))
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: no convergence"))
    assert not is_out_of_memory(ValueError(DEVICE))  # somebody else's words


@pytest.mark.parametrize(("text", "need"), [(DEVICE, "12.50GiB"), (HOST, "4000000 bytes")])
def test_the_line_has_the_size_and_the_advice(text, need):
    with pytest.raises(InputError) as caught, advice_if_out_of_memory("lower it"):
        raise jax.errors.JaxRuntimeError(text)
    assert str(caught.value) == f"no memory is left on cpu (it was asked for {need} more): lower it"
    with pytest.raises(InputError) as caught, advice_if_out_of_memory("lower it"):
        raise MemoryError
    assert str(caught.value) == "no memory is left on cpu: lower it"


def test_other_errors_pass():
    for error in (KeyError("a"), jax.errors.JaxRuntimeError("INTERNAL: b")):
        with pytest.raises(type(error)), advice_if_out_of_memory("lower it"):
            raise error


def test_make_says_what_makes_a_smaller_simulator(monkeypatch, dataset):
    monkeypatch.setattr(factory, "build_catalogue", fail)
    small = {"history_length": 4, "session_capacity": 6}
    with pytest.raises(InputError, match="lower table_budget") as caught:
        jaxsim.make(dataset, **small)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["_prepare", "_ChunkLoop.run"])
def test_training_names_the_settings_to_lower(monkeypatch, where):
    monkeypatch.setattr(f"agents.runs.training.{where}", fail)
    with pytest.raises(InputError) as caught:
        training.train_seeds(walk(), None, 4, 3, at_once=2)
    message = str(caught.value)
    assert message.startswith("no memory is left on cpu (it was asked for 12.50GiB more): ")
    expected = "lower num_envs (2), seeds at once (2), seeds (3), rollout_length (2)"
    assert expected in message


def test_a_command_line_prints_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main({"fail": lambda: fail()}, "program", "Fails.", ["fail"])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no memory is left on cpu (it was asked for 12.50GiB more): ")
    assert err.count("\n") == 1
