"""`jaxsim.explain`: one decision of the simulated user in words, numbers and keywords."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxsim.checks import check_key, decision_arguments, integers, is_concrete
from jaxsim.dataset import Dataset
from jaxsim.ensemble import Decision
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.explanation.question import History, OutcomesT, Question
from jaxsim.explanation.taste import TasteExplanation, TasteOutcomes, explain_taste
from jaxsim.explanation.vote_outcomes import VoteOutcomes
from jaxsim.explanation.votes import Explanation, explain_votes
from jaxsim.explanation.words import ItemWords
from jaxsim.types import EnvParams
from jaxsim.user_models import TASTE_SEMANTICS


def explain(
    dataset: Dataset,
    env: UserSimulator,
    params: EnvParams,
    history_items: Any,
    history_labels: Any,
    candidate: Any,
    user: Any = -1,
    key: jax.Array | None = None,
    position: Any = None,
    flips: bool = True,
) -> Explanation | TasteExplanation:
    """Explain one decision of `env.respond`.

    The semantics "paper" and "released" ask the three votes, which an `Explanation` describes; "calibrated" and
    "soft" ask the taste model, which a `TasteExplanation` describes. Both print as tables, and `to_dict` returns
    them as plain values.

    A history of up to `env.window` interactions is padded to that length, a longer one to a power of two, so that
    histories of many lengths share one compiled program. Probabilities equal those of `env.respond` up to float32
    rounding, so a decision can differ if a probability is that close to 1/2. Everything else is equal.

    Args:
        dataset: the dataset that `jaxsim.make` was given.
        env, params: of `jaxsim.make`.
        history_items: int[H], any H, -1 pads anywhere.
        history_labels: int[H] or bool[H], 1 like, 0 dislike (or, as in an observation, -1 dislike and 0 padding).
        candidate: int, the item.
        user: int, for f_sta's user effect; -1 takes the mean. The taste model knows users by their history only.
        key: PRNG key of the coins or of the draw, as in `env.respond`; None leaves them open.
        position: int, of the recommendation in the session, from 1; with `departure="fitted"` the explanation then
            has the chance that the user leaves after it, and why.
        flips: look for the changes that flip the decision, for which the simulator responds to hundreds of other
            histories. With False they are left out, which saves nearly all of the time.

    Raises:
        InputError: an argument of a wrong type or out of range, a dataset other than the simulator's, an
            environment with a `user_model`, a position where the departure is constant, or a call inside jit or
            vmap.
    """
    _check_dataset(dataset, env, params)
    if env.own_model is not None:
        raise InputError(
            "explain describes the votes and the taste model, and this environment has a user_model of its own"
        )
    words = ItemWords(dataset)
    position = _checked_position(env, position)
    arguments = env, params, key, history_items, history_labels, candidate, user, position, flips
    if env.semantics in TASTE_SEMANTICS:
        return explain_taste(words, _read_question(*arguments, TasteOutcomes.read))
    return explain_votes(words, _read_question(*arguments, VoteOutcomes.read))


def _check_dataset(dataset: Dataset, env: UserSimulator, params: EnvParams) -> None:
    for name, value, kind, source in (
        ("dataset", dataset, Dataset, "jaxsim.load_dataset returned"),
        ("env", env, UserSimulator, "jaxsim.make returned, or env.single of slates"),
        ("params", params, EnvParams, "jaxsim.make returned"),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{name} is a {type(value).__name__}: pass what {source}")
    sizes = (dataset.num_items, dataset.num_users)
    if sizes != (env.num_items, env.num_users):
        raise InputError(
            f"dataset {dataset.name} has {sizes[0]} items and {sizes[1]} users, but env has {env.num_items} and "
            f"{env.num_users}: pass the dataset that jaxsim.make was given"
        )


def _checked_position(env: UserSimulator, position: Any) -> int | None:
    if position is None:
        return None
    if env.departure != "fitted":
        raise InputError(
            'position is about leaving, which is constant here: make the environment with departure="fitted"'
        )
    if not is_concrete(position) or int(integers("position", position, rank=0)) < 1:
        raise InputError(
            f"position is {position}: give the step of the session, a whole number from 1"
        )
    return int(position)


def _read_question(
    env: UserSimulator,
    params: EnvParams,
    key: Any,
    history_items: Any,
    history_labels: Any,
    candidate: Any,
    user: Any,
    position: int | None,
    flips: bool,
    read: Callable[[Decision, bool], OutcomesT],
) -> Question[OutcomesT]:
    if not is_concrete(history_items, history_labels, candidate, user, key):
        raise InputError("explain looks up words on the host: call it outside jit and vmap")
    if key is not None:
        check_key(key)
    arguments = decision_arguments(
        history_items, history_labels, candidate, user, env.num_items, env.num_users
    )
    items, labels, candidate, user = map(np.asarray, arguments)
    positions = np.flatnonzero(items >= 0)
    likes = (labels[positions] > 0).astype(np.int8)
    history = History(positions, items[positions].astype(np.int32), likes)
    return Question(env, params, key, history, int(candidate), int(user), read, position, flips)
