"""A user's own model of users in place of the votes and the taste model: `jaxsim.make(dataset, user_model=MODEL)`.

`UserModel` is what such a model has to say. `OwnUser` turns it into what the environment needs, as `Votes` and
`Taste` do in `jaxsim.user_models`. `check_model` tries it on a few users and items before anything long begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.ensemble import Decision, Evidence, Semantics
from jaxsim.errors import InputError
from jaxsim.types import EnvParams, EnvState, Histories
from jaxsim.user_models import (
    LIKELY,
    TASTE_SEMANTICS,
    Arrival,
    Fields,
    Interaction,
    Outlook,
    Question,
    interactions_first,
    outcome,
)

_USERS_TRIED, _ITEMS_TRIED = 3, 4
_TOLERANCE = 1e-3  # between `probability` and `probabilities`


@runtime_checkable
class UserModel(Protocol):
    """What a model of users says about one user and one session. Subclass it with a frozen dataclass.

    The environment calls the methods inside `jax.jit` and `jax.vmap`, so they are pure functions of their
    arguments. Arrays belong into `params`, the pytree that is given to `jaxsim.make(user_params=)`. The fields of
    the dataclass are static settings; they must be hashable. A state is any pytree of arrays (keys of random
    numbers excepted) of the same shapes and dtypes throughout a session.
    """

    def init(
        self, params: Any, user: jax.Array, items: jax.Array, likes: jax.Array, length: jax.Array
    ) -> Any:
        """The state of a user after an initial history.

        Args:
            params: of `jaxsim.make(user_params=)`.
            user: int32[]; -1 for an unknown user.
            items: int32[H], left-aligned, -1 pads. H is 1 or more; sessions and `env.respond` may differ in it.
            likes: int8[H], 1 like, 0 dislike or padding.
            length: int32[], number of interactions in it, from 0.
        """
        ...

    def probability(self, params: Any, state: Any, item: jax.Array) -> jax.Array:
        """Probability that the user likes an item int32[], float32[]."""
        ...

    def update(self, params: Any, state: Any, item: jax.Array, like: jax.Array) -> Any:
        """The state after one more interaction: item int32[], like int8[] (1 like, 0 dislike)."""
        ...

    def probabilities(self, params: Any, state: Any, num_items: int) -> jax.Array:
        """`probability` of each of N items, float32[N]. Override it if that can be had for less."""
        items = jnp.arange(num_items, dtype=jnp.int32)
        return jax.vmap(lambda item: self.probability(params, state, item))(items)


@dataclass(frozen=True)
class OwnUser:
    """The user of a `UserModel`, who likes an item with the probability that it gives.

    Attributes:
        model: the model.
        num_items: N.
        semantics: "calibrated" draws the like with the probability, and it earns 1; "soft" likes where it is at
            least 1/2, and every response earns the probability.
    """

    model: UserModel
    num_items: int
    semantics: str

    def start(self, params: EnvParams, arrival: Arrival) -> Fields:
        """The model's state after a user's initial history."""
        user = arrival.user
        of_user = jax.tree.map(lambda x: x[user], params.histories)
        state = self._init(params, user, of_user.items, of_user.likes, of_user.length)
        return {"hidden": None, "key_values": None, "user_state": state}

    def pad(self, params: EnvParams, state: EnvState) -> EnvState:
        """The state as it is: a model makes room for the session by itself."""
        return state

    def decide(
        self, key: jax.Array, params: EnvParams, state: EnvState, candidate: jax.Array
    ) -> Decision:
        """The decision on a candidate int32[]."""
        return self._outcome(key, params, state.user_state, candidate)

    def append(self, params: EnvParams, state: EnvState, new: Interaction) -> Fields:
        """The model's state with one more interaction."""
        updated = self.model.update(params.user_params, state.user_state, new.item, new.like)
        kept = jax.tree.map(
            lambda old, x: jnp.where(new.valid, jnp.asarray(x, old.dtype), old),
            state.user_state,
            updated,
        )
        return {"user_state": kept}

    def begin_evidence(self, params: EnvParams, items: jax.Array, likes: jax.Array) -> None:
        """None: the state has all that `expected` needs."""

    def expected(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> jax.Array:
        """Probability that each item is liked, float32[N]."""
        return self.model.probabilities(params.user_params, state.user_state, self.num_items)

    def outlook(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> Outlook:
        """What the user would answer about every item."""
        probability = self.expected(params, state, evidence)
        return Outlook(probability, probability >= LIKELY)

    def respond(
        self, key: jax.Array, params: EnvParams, question: Question, reasons: bool
    ) -> Decision:
        """The decision on a candidate after any history; see `UserSimulator.respond`."""
        if question.items.shape[0] == 0:  # a model need not know histories without positions
            nothing = jnp.full(1, -1, jnp.int32), jnp.zeros(1, jnp.int8)
            question = question._replace(items=nothing[0], likes=nothing[1])
        order, length = interactions_first(question.items)
        items = question.items[order]
        likes = jnp.where(items >= 0, question.likes[order], jnp.int8(0))
        state = self._init(params, question.user, items, likes, length)
        return self._outcome(key, params, state, question.candidate)

    def info(self, decision: Decision) -> dict[str, jax.Array]:
        """What a step's info says about the decision."""
        return {"probability": decision.probability}

    def _init(self, params: EnvParams, *history: jax.Array) -> Any:
        return _strongly_typed(self.model.init(params.user_params, *history))

    def _outcome(
        self, key: jax.Array, params: EnvParams, state: Any, candidate: jax.Array
    ) -> Decision:
        probability = self.model.probability(params.user_params, state, candidate)
        probability = jnp.asarray(probability, jnp.float32)
        return outcome(key, self.semantics, probability, probability >= LIKELY)


def _strongly_typed(tree: Any) -> Any:
    """The tree as arrays with types of their own: a Python number would take the type of its neighbours."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)


# ---- checks ------------------------------------------------------------------------------------------------


def choose_semantics(semantics: Semantics | None, user_model: UserModel | None) -> Semantics:
    """The semantics that was asked for, or else "calibrated" with a user model and "paper" without one.

    Raises:
        InputError: a user model with a semantics that asks the votes.
    """
    if user_model is None:
        return semantics or "paper"
    if semantics is not None and semantics not in TASTE_SEMANTICS:
        raise InputError(
            f"user_model gives probabilities, and semantics={semantics!r} counts votes: "
            'use semantics="calibrated" or "soft"'
        )
    return semantics or "calibrated"


def check_alone(user_model: Any, user_params: Any, **others: tuple[Any, Any]) -> None:
    """Check that a user model is one, and that no setting of another model of users is given beside it.

    Args:
        user_model: of `jaxsim.make`; None if there is none.
        user_params: of `jaxsim.make`.
        others: settings that speak of the other models: their value, and the value that says nothing.

    Raises:
        InputError: an object without the methods, or not hashable; a setting beside it; or params without a model.
    """
    if user_model is None:
        if user_params is not None:
            raise InputError("user_params are of a user_model: give both")
        return
    missing = [n for n in _METHODS if not callable(getattr(user_model, n, None))]
    if missing or isinstance(user_model, type):
        raise InputError(
            f"user_model {user_model!r} is no object with the methods {', '.join(_METHODS)}: pass an object of a "
            "subclass of jaxsim.UserModel"
        )
    try:
        hash(user_model)
    except TypeError as error:
        raise InputError(
            f"user_model {type(user_model).__name__} is not hashable ({_line(error)}): make it a frozen "
            "dataclass, and give its arrays as user_params"
        ) from None
    for name, (value, silent) in others.items():
        if value != silent:
            raise InputError(f"{name}={value!r} has no meaning beside user_model: leave one out")


_METHODS = ("init", "probability", "update", "probabilities")


def check_model(model: UserModel, params: Any, histories: Histories, num_items: int) -> None:
    """Try a model on a few users and items, as the environment will use it: jitted and vmapped over sessions.

    `probabilities` is only run where the model overrides it; otherwise it costs N calls of `probability`.

    Raises:
        InputError: params that are no arrays; a method that raises, or returns another shape or dtype than
            `UserModel` says, NaN, or a probability outside [0, 1]; an update that changes the form of the state;
            or `probabilities` that differ from `probability`.
    """
    _check_arrays(params)
    num_users = histories.length.shape[0]
    users = np.unique(np.linspace(0, num_users - 1, _USERS_TRIED).astype(np.int32))
    items = np.unique(np.linspace(0, num_items - 1, _ITEMS_TRIED).astype(np.int32))
    rows = jax.tree.map(lambda x: x[users], histories)
    trial = _Trial(model, params, num_items, len(users))
    states = trial.call("init", users, rows.items, rows.likes, rows.length)
    _check_state(states)
    for when in ("", " after an update"):
        for item in items:
            values = trial.call("probability", states, item)
            _check_values(f"probability{when}", values, users.shape)
        previous = states
        states = trial.call("update", states, items[0], np.int8(1))
        _check_form(previous, states)
    if getattr(type(model), "probabilities", None) is not UserModel.probabilities:
        _check_all_items(trial, states, items, (len(users), num_items))


def _check_all_items(
    trial: "_Trial", states: Any, items: np.ndarray, shape: tuple[int, int]
) -> None:
    values = trial.call("probabilities", states)
    _check_values("probabilities", values, shape)
    for item in items:
        one = trial.call("probability", states, item)
        if not np.allclose(one, values[:, item], atol=_TOLERANCE):
            raise InputError(
                f"user_model.probabilities gives {float(values[0, item]):.4g} for item {item}, but "
                f"user_model.probability {float(one[0]):.4g}: they must agree"
            )


class _Trial:
    """The methods of a model over the sessions of a few users, jitted."""

    def __init__(self, model: UserModel, params: Any, num_items: int, num_users: int) -> None:
        def all_items(params: Any, state: Any) -> jax.Array:
            return model.probabilities(params, state, num_items)

        def over_users(method: Callable[..., Any], *axes: int | None) -> Callable[..., Any]:
            return jax.jit(jax.vmap(method, (None, *axes), axis_size=num_users))

        self._params = params
        self._methods = {
            "init": over_users(model.init, 0, 0, 0, 0),
            "probability": over_users(model.probability, 0, None),
            "update": over_users(model.update, 0, None, None),
            "probabilities": over_users(all_items, 0),
        }

    def call(self, name: str, *args: Any) -> Any:
        """Call a method with the params.

        Raises:
            InputError: the method raises, or cannot be jitted and vmapped.
        """
        args = _strongly_typed((self._params, *args))
        try:
            return jax.block_until_ready(self._methods[name](*args))
        except InputError:
            raise
        except Exception as error:  # anything that other people's code may raise
            raise InputError(
                f"user_model.{name} cannot be run inside jit and vmap ({type(error).__name__}: {_line(error)})"
            ) from error


def _check_arrays(params: Any) -> None:
    for leaf in jax.tree.leaves(params):
        try:
            jnp.asarray(leaf)
        except TypeError:
            raise InputError(
                f"user_params holds a {type(leaf).__name__} that is no array of numbers: {repr(leaf)[:60]}"
            ) from None


def _line(error: Exception) -> str:
    """The beginning of an error's message, on one line; the last line of a traceback from a callback."""
    text = str(error).strip()
    text = " ".join((text.splitlines()[-1] if "Traceback" in text else text).split())
    return text if len(text) <= 160 else f"{text[:160]} ..."


def _check_values(name: str, values: Any, shape: tuple[int, ...]) -> None:
    """Check probabilities of several sessions, the first axis."""
    got = f"{getattr(values, 'dtype', type(values).__name__)}{list(jnp.shape(values)[1:])}"
    expected = f"float32{list(shape[1:])}"
    if got != expected:
        raise InputError(f"user_model.{name} is {got} for one session: return {expected}")
    numbers = np.asarray(values)
    wrong = numbers[~((numbers >= 0) & (numbers <= 1))]
    if wrong.size:
        raise InputError(
            f"user_model.{name} is {wrong.flat[0]:.4g}: return probabilities, from 0 to 1"
        )


def _check_state(states: Any) -> None:
    for leaf in jax.tree.leaves(states):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise InputError(
                "user_model.init has a PRNG key in its state: the environment draws the likes"
            )


def _check_form(before: Any, after: Any) -> None:
    trees: list[Any] = [jax.tree.structure(x) for x in (before, after)]
    if trees[0] != trees[1]:
        raise InputError(
            f"user_model.update returns {trees[1]}, but init {trees[0]}: a state must keep its form"
        )
    for (path, old), new in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        forms = [f"{x.dtype}{list(x.shape[1:])}" for x in (old, new)]
        if forms[0] != forms[1]:
            raise InputError(
                f"user_model.update returns {forms[1]} at state{jax.tree_util.keystr(path)}, but init "
                f"{forms[0]}: a state must keep its form"
            )
