"""Table 2: what is written, printed and drawn, of agents whose rewards are known."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import jaxsim
from agents.algorithms.algorithm import AlgorithmConfig
from agents.algorithms.registry import AlgorithmEntry
from agents.evaluation.baselines import FixedRanking, RandomPolicy
from agents.evaluation.plots import learning_curve, plot_curves
from agents.runs.progress import Training
from benchmarks import table2
from benchmarks.table2 import PAPER, all_agents, configs_of, format_paper, run_table2
from jaxsim import InputError
from tests.agents.conftest import learnable_dataset
from tests.factory import write_pack

KEYS = {
    "policy", "users", "seeds", "a_rwd", "a_rwd_low", "a_rwd_high", "paired_low", "paired_high",
    "share_of_oracle", "t_rwd", "liking", "steps", "seconds",
}  # fmt: skip
BASELINES = {"random", "popular", "like_rate", "static_best", "oracle"}


@dataclass(frozen=True)
class Ranker:
    """An algorithm whose variables are the scores that it ranks by; sampled, it recommends anything."""

    env: Any
    config: AlgorithmConfig

    def policy_of(self, variables: jax.Array, sampled: bool = False) -> FixedRanking | RandomPolicy:
        return RandomPolicy() if sampled else FixedRanking(variables)


class Good(Ranker):
    """Recommends even items, which everyone likes."""


class Bad(Ranker):
    """Recommends odd items, which nobody likes."""


def log_of(seeds: int) -> pd.DataFrame:
    """Seed s has like rates 0.1 s, then 0.2 + 0.1 s."""
    rows = [
        (s, step, start + 0.1 * s) for step, start in ((10, 0.0), (20, 0.2)) for s in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["seed", "steps", "like_rate"])


def train(algorithm, params, seed, num_seeds, items) -> Training:
    assert items is None
    scores = (jnp.arange(40.0) + isinstance(algorithm, Good)) % 2
    log = log_of(num_seeds)
    return Training(jnp.stack([scores] * num_seeds), log, algorithm.config.total_steps, 1.5, 2.5)


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    return write_pack(learnable_dataset(), tmp_path_factory.mktemp("pack") / "tiny")


def once(function):
    """The function; after the first call, it returns the same result again."""
    results = []

    def call(*args):
        if not results:
            results.append(function(*args))
        return results[0]

    return call


class Run(NamedTuple):
    printed: str
    written: list[dict[str, Any]]
    figure: bytes


@pytest.fixture(scope="module")
def run(pack, tmp_path_factory) -> Run:
    """Two agents of known rewards, on the same dataset twice; it is measured once."""
    out = tmp_path_factory.mktemp("table2")
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        agents = {
            "good": AlgorithmEntry(AlgorithmConfig, Good),
            "bad": AlgorithmEntry(AlgorithmConfig, Bad),
        }
        patch.setattr(table2, "ALGORITHMS", agents)
        patch.setattr(table2, "train_seeds", train)
        patch.setattr(table2, "measure", once(table2.measure))
        patch.setattr(table2, "make", partial(jaxsim.make, history_length=4, session_capacity=10))
        patch.setattr("builtins.print", lambda *args, **_: printed.append(" ".join(map(str, args))))
        run_table2(
            (str(pack), str(pack)),
            seeds=2,
            total_steps=1000,
            json=out / "t.json",
            plot=out / "new" / "t.png",
        )
    content = json.loads((out / "t.json").read_text())
    return Run("\n".join(printed), content, (out / "new" / "t.png").read_bytes())


@pytest.mark.slow
def test_several_datasets_are_a_list_of_objects(run):
    first, second = run.written
    assert first["dataset"] == second["dataset"] == "invented"
    assert {"device", "dataset", "rows", "warnings", "training", "curves"} <= first.keys()
    assert first["rows"] == second["rows"]


@pytest.mark.slow
def test_rows_have_the_fixed_keys_and_known_rewards(run):
    rows = {(row["policy"], row["users"]): row for row in run.written[0]["rows"]}
    agents = {"good", "good_sampled", "bad", "bad_sampled"}
    assert set(rows) == {(p, u) for p in agents | BASELINES for u in ("train", "held_out")}
    assert all(row.keys() >= KEYS for row in rows.values())
    for users in ("train", "held_out"):
        good, bad, random, oracle = (rows[p, users] for p in ("good", "bad", "random", "oracle"))
        assert good["a_rwd"] == oracle["a_rwd"] > 0
        assert (good["share_of_oracle"], good["seeds"], good["mode"]) == (1.0, 2, "greedy")
        assert (good["steps"], good["seconds"], good["compile_seconds"]) == (1000, 2.5, 1.5)
        assert (bad["a_rwd"], bad["liking"]) == (0.0, 0.0)
        assert (oracle["steps"], oracle["compile_seconds"]) == (0, 0.0)
        # Readers of plain names meet greedy policies alone; the sampled ones draw as `random` does.
        sampled = rows["good_sampled", users]
        assert (sampled["a_rwd"], sampled["mode"]) == (random["a_rwd"], "sampled")
        assert (sampled["steps"], sampled["compile_seconds"]) == (1000, 1.5)


@pytest.mark.slow
def test_curves_are_mean_and_range_of_the_seeds(run):
    curve = run.written[0]["curves"]["good"]
    assert curve["steps"] == [10, 20]
    for name, expected in (("mean", [0.05, 0.25]), ("low", [0.0, 0.2]), ("high", [0.1, 0.3])):
        np.testing.assert_allclose(curve[name], expected, atol=1e-12)


@pytest.mark.slow
def test_cost_is_told_with_compilation_apart(run):
    cost = run.written[0]["training"]["bad"]
    assert cost["steps_per_second"] == 2 * 1000 / 2.5
    assert cost["settings"]["total_steps"] == 1000
    line = next(line for line in run.printed.splitlines() if line.startswith("bad  "))
    assert line.split() == ["bad", "1,000", "2.5", "800", "1.5"]


@pytest.mark.slow
def test_the_papers_table_and_its_caveat_are_printed(run):
    assert format_paper() in run.printed
    assert "27.56" in format_paper()
    assert "not comparable" in format_paper()
    assert run.figure.startswith(b"\x89PNG")


def test_the_papers_numbers_are_consistent():
    """Its T.Rwd is 9 to 14 times A.Rwd; DQN is best but for Games and Anime, where A2C is."""
    for name, agents in PAPER.items():
        assert set(agents) == {"ppo", "trpo", "a2c", "dqn"}
        assert all(9 < total / average < 14.5 for average, total, _ in agents.values())
        best = max(agents, key=lambda agent, agents=agents: agents[agent][0])
        assert best == ("a2c" if name in ("amazon-games", "anime") else "dqn")


def test_one_dataset_is_an_object(pack, tmp_path, monkeypatch):
    result = table2.Table2({"dataset": "x"}, None, {})  # type: ignore[arg-type]
    monkeypatch.setattr(table2, "measure", lambda *_: result)
    monkeypatch.setattr(table2, "format_report", lambda _: "report")
    run_table2((str(pack),), json=tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text()) == {"dataset": "x"}


def test_all_agents_of_the_paper_are_trained_unless_some_are_named():
    assert all_agents()[:4] == ("ppo", "trpo", "a2c", "dqn")
    configs = configs_of(("dqn", "ppo"), total_steps=123)
    assert list(configs) == ["dqn", "ppo"]
    assert {config.total_steps for config in configs.values()} == {123}
    assert configs_of(("dqn",), None)["dqn"] == type(configs["dqn"])()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "--seeds 0"),
        ({"agents": ("dqn", "sac")}, "--agents sac: unknown; choose from ppo, trpo, a2c, dqn"),
        ({"agents": ("dqn", "dqn")}, "--agents dqn: is given twice"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"dataset": ("nothing-such",)}, "nothing-such"),
        ({"json": Path(__file__).parent}, "is a folder"),
        ({"plot": Path("figure.xyz")}, "no picture format"),
    ],
    ids=["seeds", "unknown", "twice", "steps", "dataset", "json", "plot"],
)
def test_senseless_arguments_are_refused_before_any_work(pack, arguments, message, monkeypatch):
    monkeypatch.setattr(table2, "measure", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(InputError) as caught:
        run_table2(**{"dataset": (str(pack),), **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- the figure --------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """What a figure reads of a row."""

    policy: str
    mode: str
    users: str
    like_rate: float


POINTS = [
    Point("dqn", "greedy", "train", 0.9),
    Point("dqn", "sampled", "train", 0.8),
    Point("dqn", "greedy", "held_out", 0.1),
    Point("random", "baseline", "train", 0.5),
]


def test_a_figure_shows_mean_band_evaluation_and_baselines():
    axes = Figure().add_subplot()
    plot_curves(axes, {"dqn": log_of(3), "ppo": log_of(1)}, POINTS, "title")
    lines = {line.get_label(): line for line in axes.lines}
    mean = lines["dqn, training: mean and range of 3 seeds"]
    np.testing.assert_allclose(mean.get_ydata(), [0.1, 0.3])
    np.testing.assert_allclose(mean.get_xdata(), [10, 20])
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(v, 6)) for v in band} == {(10, 0), (10, 0.2), (20, 0.2), (20, 0.4)}
    assert "ppo, training: one seed" in lines
    assert lines["dqn, greedy: 0.900"].get_xydata().tolist() == [[20, 0.9]]
    assert lines["dqn, sampled: 0.800"].get_marker() != lines["dqn, greedy: 0.900"].get_marker()
    assert lines["random: 0.500"].get_ydata() == [0.5, 0.5]
    assert len(lines) == 5  # nothing of held-out users


def test_the_curve_of_a_run_bears_its_policys_name():
    (axes,) = learning_curve(log_of(2), POINTS, "DQN on invented").axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "dqn, training: mean and range of 2 seeds"
    assert axes.get_title() == "DQN on invented"


def test_the_personal_preset_has_settings_for_every_agent():
    personal = configs_of(all_agents(), 1000, "personal")
    for name, config in personal.items():
        config.check()
        assert (config.encoder, config.item_embedding) == ("residual", "logs")
        assert config.total_steps == 1000
        # Values of DQN are near probabilities; the others draw from a softmax of their scores.
        assert (config.log_odds_scale < 1) == (name == "dqn")
    slates = configs_of(all_agents(), 1000, "personal", slates=True)
    # With slates DQN's log-odds are those by which users choose; the others are as before.
    assert slates.pop("dqn") == replace(personal.pop("dqn"), log_odds_scale=1.0)
    assert slates == personal
    default = configs_of(all_agents(), None, slates=True)
    assert default == configs_of(all_agents(), None)


@pytest.mark.slow
def test_agents_that_start_from_logs_earn_more_at_once(pack, tmp_path, monkeypatch, capsys):
    """After a few steps, a policy that started from the logs knows which items are good; another one does not."""
    monkeypatch.setattr(table2, "make", partial(jaxsim.make, history_length=4, session_capacity=10))
    rewards = {}
    for preset in ("default", "personal"):
        path = tmp_path / f"{preset}.json"
        run_table2(
            (str(pack),),
            ("a2c",),
            2,
            total_steps=300,
            preset=preset,
            json=path,
        )
        result = json.loads(path.read_text())
        assert result["training"]["a2c"]["settings"]["item_embedding"] == (
            "logs" if preset == "personal" else "learned"
        )
        rows = {(row["policy"], row["users"]): row for row in result["rows"]}
        rewards[preset] = rows["a2c_sampled", "train"]["a_rwd"] / rows["oracle", "train"]["a_rwd"]
    capsys.readouterr()
    assert rewards["personal"] > 0.9
    assert rewards["default"] < 0.8
