"""Training on four forced host devices is training on one: same sessions, same networks up to rounding."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from agents.algorithms.parallel import lay_out
from agents.algorithms.ppo import PPO, PPOConfig
from jaxsim import InputError
from tests.agents.algorithms.probes import ProbeEnv
from tests.paths import ROOT

NAMES = ["ppo", "trpo", "dqn", "whole seeds", "candidates of a2c", "candidates of dqn"]


@pytest.fixture(scope="module")
def differences(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("devices") / "differences.json"
    # Code that runs for a second need not be optimised for longer.
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = {
        **os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.agents.runs.device_process", str(out)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())


@pytest.mark.slow  # a process of its own that compiles every algorithm for one device and for four
@pytest.mark.parametrize("name", NAMES)
def test_four_devices_agree_with_one(differences, name):
    difference = differences[name]
    assert difference["devices"] == 4
    # The same items, responses and ends; only gradients are summed in another order. With candidates the sessions
    # are those of a simulator, whose state has floats that depend on how many sessions a device computes.
    assert difference["sessions"] <= (1e-6 if "candidates" in name else 0)
    assert difference["variables"] < 1e-4
    assert difference["state"] < 1e-3
    assert difference["account"] < 1e-3
    assert difference["copies"] == 0
    assert difference["moved"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "whole seeds"])
def test_a_resumed_run_on_four_devices_ends_the_same(differences, name):
    assert differences[name]["resumed"] == 0


@pytest.mark.parametrize(
    ("devices", "message"), [(0, "devices is 0"), (99, "devices is 99, but this machine has")]
)
def test_a_number_of_devices_that_the_machine_does_not_have_is_refused(devices, message):
    with pytest.raises(InputError, match=message):
        lay_out(PPO(ProbeEnv(), PPOConfig()), 1, devices)


def test_a_run_that_cannot_be_split_is_refused(monkeypatch):
    monkeypatch.setattr("jax.devices", lambda: [object()] * 4)
    monkeypatch.setattr("agents.algorithms.parallel.make_mesh", lambda devices: devices)
    agent = PPO(ProbeEnv(), replace(PPOConfig(), num_envs=6))
    with pytest.raises(InputError, match="split neither 3 seeds nor num_envs 6"):
        lay_out(agent, 3, 4)
