"""The comparison with Stable-Baselines3: small sizes, the parts that decide what a figure means."""

from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.algorithms.algorithm import LOG_POINTS
from agents.algorithms.dqn import DQN, DQNConfig
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation import baselines
from agents.evaluation.baselines import FixedRanking, smoothed, training_counts
from benchmarks.training import command, own_agents, sb3_agents
from benchmarks.training import learner as learner_module
from benchmarks.training.empty_env import EmptyEnv, EmptyVectorEnv
from benchmarks.training.learner import Learner
from benchmarks.training.own_agents import (
    Plan,
    equal_samples,
    median_seconds,
    plain_config,
    samples_per_step,
)
from benchmarks.training.report import format_report
from benchmarks.training.sb3_agents import SB3_KEYS
from benchmarks.training.target import SESSIONS_SEED, Attempt, Target, like_rate_target
from jaxsim import InputError, Observation
from jaxsim.gymnasium_adapter import GymnasiumEnv

NUM_ENVS = 8  # the same everywhere, for one compilation
SMALL = DQNConfig(
    total_steps=320,
    num_envs=4,
    rollout_length=2,
    batch_size=4,
    replay_steps=64,
    width=4,
    gradient_steps=2,
)


# ---- the environment that does nothing -------------------------------------------------------------------


def test_the_empty_environment_has_the_same_spaces_and_does_nothing(simulator):
    like = GymnasiumEnv(simulator.env, simulator.params, seed=0)
    empty = EmptyEnv(like)
    assert empty.observation_space == like.observation_space
    assert empty.action_space == like.action_space
    first, _ = empty.reset(seed=0)
    assert empty.observation_space.contains(first)
    assert first["length"] == [10]
    assert (first["items"] >= 0).sum() == (first["responses"] > 0).sum() == 10
    obs, reward, terminated, truncated, _ = empty.step(3)
    assert all(np.array_equal(obs[name], first[name]) for name in first)
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_many_empty_environments_are_as_empty(simulator):
    like = GymnasiumEnv(simulator.env, simulator.params, seed=0)
    many = EmptyVectorEnv(like, 3)
    assert isinstance(many, gymnasium.vector.VectorEnv)
    obs, _ = many.reset()
    assert many.observation_space.contains(obs)
    one, _ = EmptyEnv(like).reset()
    assert all((obs[name] == one[name]).all() for name in one)
    _, *nothing, _ = many.step(np.zeros(3, int))
    assert not np.any(nothing)


# ---- what is compared ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_our_agents_learn_from_each_step_as_often_as_theirs(name):
    config = equal_samples(name, plain_config(name))
    config.check()
    assert samples_per_step(name, config) == {"ppo": 10, "dqn": 8, "a2c": 1, "trpo": 1}[name]


def test_samples_per_step_by_hand():
    assert samples_per_step("dqn", SMALL) == 2 * 4 / 8
    assert samples_per_step("dqn", replace(SMALL, gradient_steps=6)) == 3


@pytest.mark.parametrize(
    ("reached", "median"),
    [
        ([1.0, 2.0, 9.0], 2.0),
        ([1.0, 2.0, None], 2.0),
        ([1.0, None, None], None),
        ([None], None),
        ([3.0, None], None),
    ],
)
def test_the_median_counts_a_target_that_is_not_reached_as_slowest(reached, median):
    assert median_seconds([Attempt(reached_seconds=r) for r in reached]) == median


def test_an_attempt_keeps_when_the_target_was_first_reached():
    attempt = Attempt()
    for seconds, reward in ((1.0, 4.0), (2.0, 6.0), (3.0, 7.0)):
        attempt.add(seconds, int(10 * seconds), reward, reward >= 5)
    assert (attempt.reached_seconds, attempt.trained_seconds) == (2.0, 3.0)
    assert attempt.curve[1] == (2.0, 20, 6.0)


@pytest.fixture(scope="module")
def target(simulator) -> Target:
    with pytest.MonkeyPatch.context() as patch:
        # It ranks static_best, which is no target and takes seconds to compile.
        patch.setattr(baselines, "simulated_like_rate", lambda env, _: jnp.zeros(env.num_items))
        return like_rate_target(*simulator, num_sessions=8, seed=1)


def test_the_target_is_what_like_rate_earns_in_the_same_sessions(simulator, target):
    counts, likes = training_counts(simulator.dataset)
    ranking = jnp.asarray(smoothed(likes, counts, likes.sum() / counts.sum()), jnp.float32)
    assert target.reward == target.mean_reward(FixedRanking(ranking))
    assert target.mean_reward(FixedRanking(-ranking)) != target.reward
    users = np.asarray(target.sessions.users)
    assert len(users) == len(set(users)) == 8
    allowed = simulator.params.session_users
    assert (users.min(), users.max()) == (allowed.min(), allowed.max())


# ---- our side --------------------------------------------------------------------------------------------


class Counting:
    """An algorithm that learns nothing: its state is the number of iterations, its policy ranks by item number."""

    config = SimpleNamespace(iterations_per_log=1, steps_per_iteration=8, num_iterations=3)

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def init(self, key, params, items=None):
        return jnp.int32(0)

    def iterations(self, state, params, count):
        return state + count, {}

    def variables(self, state):
        return jnp.arange(self.num_items, dtype=jnp.float32)

    def policy_of(self, variables):
        return FixedRanking(variables)


@pytest.fixture
def learner(simulator) -> Learner:
    return Learner.compile(Counting(simulator.env.num_items), simulator.params, seed=0)


def test_a_speed_is_steps_by_time(learner, monkeypatch):
    made = []
    monkeypatch.setattr(Learner, "seconds", lambda _, calls: made.append(calls) or 0.5 * calls)
    monkeypatch.setattr(learner_module, "RUN_SECONDS", 1.2)
    assert learner.steps_per_call == 8
    assert learner.speeds(repeats=2) == [16.0, 16.0]
    assert made == [1, 3, 3]


def test_training_is_watched_until_the_target_is_reached(learner, target):
    reached = learner.attempt(replace(target, reward=-1.0), limit=1e9)
    assert len(reached.curve) == 1
    assert reached.reached_seconds == reached.curve[0][0] > 0
    assert reached.curve[0][1] == 8
    stopped = learner.attempt(replace(target, reward=1e9), limit=1e-9)
    assert len(stopped.curve) == 1
    assert stopped.reached_seconds is None
    whole = learner.attempt(replace(target, reward=1e9), limit=1e9)
    assert [steps for _, steps, _ in whole.curve] == [8, 16, 24]
    assert whole.reached_seconds is None
    assert learner.state == 5
    learner.restart(seed=1)
    assert learner.state == 0


@pytest.mark.slow
def test_a_real_agent_is_compiled_and_learns(simulator, target):
    learner = Learner.compile(DQN(simulator.env, SMALL), simulator.params, seed=0)
    assert learner.compile_seconds > 0
    before = jax.tree.map(np.array, learner.algorithm.variables(learner.state))
    attempt = learner.attempt(replace(target, reward=1e9), limit=1e9)
    assert [steps for _, steps, _ in attempt.curve] == [8 * (i + 1) for i in range(LOG_POINTS)]
    after = learner.algorithm.variables(learner.state)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
    assert any(jax.tree.leaves(changed))


# ---- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"agents": ("dpn",)}, "--agents dpn: unknown; choose from .*dqn", id="agents"),
        pytest.param({"repeats": 0}, "--repeats 0", id="repeats"),
        pytest.param({"seeds": 0}, "--seeds 0", id="seeds"),
        pytest.param({"sessions": 0}, "--sessions 0", id="sessions"),
        pytest.param({"torch_threads": -1}, "--torch-threads -1", id="threads"),
        pytest.param({"limit_seconds": -1.0}, "--limit-seconds -1", id="limit"),
        pytest.param({"limit_seconds": float("nan")}, "--limit-seconds nan", id="limit nan"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(InputError, match=message):
        command.run_training("nothing", **settings)


def test_without_stable_baselines_one_line_says_what_to_do(monkeypatch):
    def missing(_):
        raise command.PackageNotFoundError

    monkeypatch.setattr(command, "version", missing)
    with pytest.raises(InputError, match=r"pip install .*\[sb3\].* or pass --no-sb3"):
        command.run_training("nothing")


def test_agents_come_in_the_order_of_the_table():
    assert command.chosen_agents(()) == ["ppo", "trpo", "a2c", "dqn"]
    assert command.chosen_agents(("dqn", "ppo")) == ["ppo", "dqn"]


ROW = {
    "agent": "dqn",
    "steps_per_second": 6000.0,
    "samples_per_step": 8.0,
    "compile_seconds": 3.0,
    "seconds_to_like_rate": 2.0,
    "seconds_to_like_rate_with_compilation": 5.0,
    "sb3_steps_per_second": 500.0,
    "sb3_noop_steps_per_second": 750.0,
    "sb3_seconds_to_like_rate": None,
    "sb3_vector_steps_per_second": 2000.0,
    "sb3_vector_noop_steps_per_second": 3000.0,
    "sb3_vector_seconds_to_like_rate": 30.0,
}
ALONE = {
    **ROW,
    **dict.fromkeys(SB3_KEYS),
    "agent": "trpo",
    "seconds_to_like_rate": None,
    "seconds_to_like_rate_with_compilation": None,
}
RESULT = {
    "device": "cpu: 2 CPU cores",
    "jax": "0",
    "dataset": "d",
    "repeats": 5,
    "like_rate_reward": 34.5,
    "limit_seconds": 240.0,
    "sessions": 512,
    "sb3": {"stable-baselines3": "2", "torch": "3", "torch_threads": 2},
    "rows": [ROW, ALONE],
}


def test_the_report_sets_ours_beside_theirs():
    lines = [line.split() for line in format_report(RESULT).splitlines()]
    speeds, alone, times, never = (line for line in lines if line and line[0] in ("dqn", "trpo"))
    assert speeds[1:4] == ["8.0", "6,000", "3.0"]
    assert speeds[4:] == ["500", "(12.0x)", "750", "(8.0x)", "2,000", "(3.0x)", "3,000", "(2.0x)"]
    assert alone[4:] == ["-"] * 4
    assert times[1:] == ["2.0", "5.0", "-", "30.0", "(15.0x)"]
    assert never[1:] == ["-"] * 4


def test_the_report_without_targets_or_comparison():
    own = {**RESULT, "like_rate_reward": None, "sb3": None, "rows": [ALONE]}
    text = format_report(own)
    assert "likes a session" not in text
    assert "Stable-Baselines3" not in text


# ---- Stable-Baselines3 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sb3():
    pytest.importorskip("stable_baselines3")
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    yield command.import_sb3(threads=1)  # tests run side by side
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def observations(simulator):
    """Sixteen windows, in the form of each side."""
    envs = GymnasiumEnv(simulator.env, simulator.params, seed=0)
    windows = []
    for user in range(16):
        obs, info = envs.reset(options={"user": user})
        for _ in range(user % 4):
            obs, *_, info = envs.step(np.argmax(info["action_mask"]))
            if envs._state is None:
                break
        windows.append(obs)
    return {name: np.stack([obs[name] for obs in windows]) for name in windows[0]}


def test_the_samples_of_their_settings(sb3):
    defaults = [sb3.default_setup(name, 32, 0.9) for name in ("ppo", "a2c", "dqn")]
    vectors = [sb3.vector_setup(name, 32, 0.9, 1e-3) for name in ("ppo", "a2c", "dqn")]
    for setups in (defaults, vectors):
        assert [setup.samples_per_step for setup in setups] == [10, 1, 8]
    assert [setup.steps_per_round for setup in defaults] == [2048, 5, 4]
    assert [setup.steps_per_round for setup in vectors] == [2048, 320, 256]


def test_the_samples_are_those_of_the_agents_themselves(sb3, simulator):
    _, env, params = simulator
    for name in sb3.MODELS:
        for setup in (sb3.default_setup(name, 4, 0.9), sb3.vector_setup(name, 4, 0.9, 1e-3)):
            envs = sb3.empty_envs(env, params, setup.num_envs)
            model = sb3.build_model(
                setup, envs, 0, **({"buffer_size": 128} if name == "dqn" else {})
            )
            if name == "dqn":
                steps = model.train_freq.frequency * setup.num_envs
                assert model.gradient_steps * model.batch_size / steps == setup.samples_per_step
            else:
                steps = model.n_steps * setup.num_envs
                assert getattr(model, "n_epochs", 1) == setup.samples_per_step
            assert steps == setup.steps_per_round
            assert model.gamma == 0.9


def test_the_extractor_averages_the_items_of_each_response(sb3, simulator):
    import torch

    from benchmarks.training.sb3_network import HistoryExtractor

    space = GymnasiumEnv(simulator.env, simulator.params, seed=0).observation_space
    extractor = HistoryExtractor(space, width=2)
    items = torch.tensor([[3, 5, 7, -1], [-1, -1, -1, -1]])
    table = torch.arange(80.0).reshape(40, 2)
    member = torch.tensor([[True, False, True, False], [False] * 4])
    mean = extractor._mean(items.clamp(min=0), member, table)
    np.testing.assert_allclose(mean, [[(6 + 14) / 2, (7 + 15) / 2], [0, 0]])


@pytest.mark.parametrize("name", ["a2c", "dqn"])
def test_their_network_is_evaluated_as_it_is(sb3, simulator, observations, name):
    """Its scores in JAX are those of torch, and it has the parts of ours."""
    import torch

    _, env, params = simulator
    width, num_items = 4, env.num_items
    setup = sb3.default_setup(name, width, 0.9)
    own = {"buffer_size": 10} if name == "dqn" else {}
    model = sb3.build_model(setup, sb3.empty_envs(env, params, 1), 0, **own)
    tensors = model.policy.obs_to_tensor(observations)[0]
    with torch.no_grad():
        if name == "dqn":
            expected = model.q_net(tensors)
        else:
            expected = model.policy.get_distribution(tensors).distribution.logits
    imported = sb3.imported_policy(model)
    window = {**observations, **{n: observations[n][:, 0] for n in ("user", "length")}}
    scores = jax.vmap(imported.scores)(Observation(**window))
    if name != "dqn":
        scores = jax.nn.log_softmax(scores)
    np.testing.assert_allclose(scores, expected, rtol=2e-4, atol=2e-5)
    encoder = 2 * num_items * width + (2 * width + 3) * 2 * width + (2 * width + 1) * width
    head = (width + 1) * num_items
    critic = 0 if name == "dqn" else (width + 1) * width + width + 1
    assert sb3.num_parameters(model) == encoder + head + critic


def test_an_imported_policy_is_a_copy(sb3, simulator):
    import torch

    setup = sb3.default_setup("a2c", 4, 0.9)
    model = sb3.build_model(setup, sb3.empty_envs(simulator.env, simulator.params, 1), 0)
    policy = sb3.imported_policy(model)
    before = np.array(policy.weights["head.bias"])
    with torch.no_grad():
        model.policy.action_net.bias.add_(1.0)
    np.testing.assert_array_equal(policy.weights["head.bias"], before)


def test_their_form_of_many_sessions_says_how_sessions_end(sb3, simulator):
    _, env, params = simulator
    always = params.replace(departure_probability=jnp.float32(1.0))
    never = params.replace(departure_probability=jnp.float32(0.0))
    never = never.replace(max_steps_in_episode=jnp.int32(1))
    for chosen, truncated in ((always, False), (never, True)):
        envs = sb3.simulator_envs(env, chosen, NUM_ENVS, seed=0)
        before = envs.reset()
        actions = envs.envs.action_masks().argmax(axis=1)
        after, rewards, dones, infos = envs.step(actions)
        assert dones.all()
        assert rewards.dtype == np.float32
        for i, info in enumerate(infos):
            assert info["TimeLimit.truncated"] is truncated
            last = info["terminal_observation"]
            assert last["length"][0] == before["length"][i, 0] + 1
            assert last["items"][last["length"][0] - 1] == actions[i]
            assert actions[i] not in after["items"][i] or after["user"][i] != before["user"][i]


@pytest.mark.parametrize(("name", "num_envs"), [("a2c", 3), ("dqn", 1)])
def test_their_speed_counts_the_steps_of_all_sessions(sb3, simulator, monkeypatch, name, num_envs):
    clock = iter(range(100))
    monkeypatch.setattr(sb3.time, "perf_counter", lambda: next(clock))
    own = {"buffer_size": 999} if name == "dqn" else {}
    setup = sb3.Setup(name, num_envs, 4, own)
    envs = sb3.empty_envs(simulator.env, simulator.params, num_envs)
    rounds = -(-20 // setup.steps_per_round)
    assert sb3.training_speeds(setup, envs, 20, repeats=2) == [rounds * setup.steps_per_round] * 2


def test_their_training_is_watched_until_the_target_is_reached(sb3, simulator, target):
    setup = sb3.Setup("a2c", NUM_ENVS, 4)
    envs = sb3.simulator_envs(simulator.env, simulator.params, NUM_ENVS, seed=0)
    reached = sb3.attempt(setup, envs, replace(target, reward=-1.0), seed=0, limit=60.0)
    assert len(reached.curve) == 1
    assert reached.reached_seconds == reached.curve[0][0]
    stopped = sb3.attempt(setup, envs, replace(target, reward=1e9), seed=0, limit=0.2)
    assert stopped.reached_seconds is None
    assert stopped.trained_seconds >= 0.2
    steps = [steps for _, steps, _ in stopped.curve]
    assert steps == sorted(steps)
    assert len(steps) > 1


def test_the_whole_comparison(sb3, simulator, learner, target, monkeypatch):
    monkeypatch.setattr(own_agents, "plain_config", lambda _: SMALL)
    monkeypatch.setattr(sb3_agents, "plain_config", lambda _: SMALL)
    monkeypatch.setattr(sb3_agents, "SB3_STEPS", {"default": 16, "vector": 16})
    monkeypatch.setattr(command, "make", lambda _: (simulator.env, simulator.params))
    monkeypatch.setattr(command, "like_rate_target", lambda *_: target)
    monkeypatch.setattr(sb3, "VECTOR_ENVS", NUM_ENVS)
    monkeypatch.setattr(sb3, "REPLAY_SIZE", 800)
    monkeypatch.setattr(learner_module, "RUN_SECONDS", 0.01)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # the other tests' programs
    compiled = []
    monkeypatch.setattr(Learner, "compile", lambda *args: compiled.append(args) or learner)
    plan = Plan(repeats=1, limit_seconds=0.1, seeds=1, sessions=8, seed=1)
    result = command.measure(simulator.dataset, ["dqn"], plan, sb3)
    (row,) = result["rows"]
    assert [args[0].config for args in compiled] == [equal_samples("dqn", SMALL), SMALL]
    assert row["samples_per_step"] == 8
    assert row["sb3_setup"]["samples_per_step"] == row["sb3_vector_setup"]["samples_per_step"] == 8
    assert row["steps_per_second"] > 0
    assert {*SB3_KEYS, "seconds_to_like_rate"} <= set(row)
    assert all(row[key] > 0 for key in SB3_KEYS if "steps_per_second" in key)
    assert result["like_rate_reward"] == target.reward
    assert result["sessions_seed"] == SESSIONS_SEED + 1
    assert "dqn" in format_report(result)
