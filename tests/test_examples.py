"""The examples run: each with little training, and only where the library that it shows is installed."""

import importlib.util

import pytest

from jaxsim import InputError, load_dataset
from tests.paths import ROOT


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_rejax_trains():
    pytest.importorskip("rejax")
    try:
        load_dataset("ml-100k")
    except InputError as error:
        pytest.skip(str(error))
    assert example("rejax_ppo").main(total_timesteps=20_480) > 15
