"""The session as a Markov decision process, behind gymnax's interface.

A session belongs to a user drawn at random. The agent recommends one item a step; the simulated user likes it
or not by the majority of three votes (`jaxsim.ensemble`), each judged on his initial history and everything
that the session appended. After each step the user leaves with a fixed probability (terminated); a session is
cut at a fixed length (truncated).

Modelling assumptions. A history never slides or forgets: it is the latest `history_length` training
interactions followed by the session. A recommended item is consumed at once and enters the history with its
response. Leaving does not depend on what was recommended. Users differ by their history and by f_sta's user
effect alone.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxsim import ensemble
from jaxsim.auto_reset import reset_where
from jaxsim.catalogue import Catalogue
from jaxsim.checks import check_key, check_range, decision_arguments, integers, known, to_int32
from jaxsim.ensemble import Decision
from jaxsim.errors import InputError
from jaxsim.sasrec import KeyValues, SASRec

ENVIRONMENT_ID = "UserSimulator-v0"


@struct.dataclass
class Prefix:
    """What f_sta has read of an initial history of H positions.

    Attributes:
        hidden: float32[width], its state after the latest interaction; zero if there is none.
        key_values: float32[H, width] of each block.
    """

    hidden: jax.Array
    key_values: KeyValues


@struct.dataclass
class Histories:
    """Initial history of each of U users, H = history_length.

    Attributes:
        items: int32[U, H], left-aligned, -1 pads.
        likes: int8[U, H], 1 like, 0 dislike or padding.
        length: int32[U].
        prefix: f_sta's reading of each history, `Prefix` [U, ...]; None where it is encoded at each reset.
    """

    items: jax.Array
    likes: jax.Array
    length: jax.Array
    prefix: Prefix | None


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Everything that a jitted program reads: always an argument, never closed over.

    Attributes:
        max_steps_in_episode: int32[], truncation; `session_capacity` bounds it.
        departure_probability: float32[], chance that the user leaves after a step.
        session_users: int32[S], the users who may start a session.
        catalogue: pair tables or item features.
        histories: initial histories.
        sasrec: variables of the statistic model.
    """

    max_steps_in_episode: int | jax.Array = struct.field(kw_only=True)
    departure_probability: jax.Array = struct.field(kw_only=True)
    session_users: jax.Array = struct.field(kw_only=True)
    catalogue: Catalogue = struct.field(kw_only=True)
    histories: Histories = struct.field(kw_only=True)
    sasrec: dict[str, Any] = struct.field(kw_only=True)


@struct.dataclass
class EnvState(environment.EnvState):
    """One session: the window of W = history_length + session_capacity positions, and f_sta's memory of it.

    Attributes:
        time: int32[], steps taken.
        user: int32[].
        items: int32[W], initial history, then the session; -1 pads.
        responses: int8[W]; 1 like, -1 dislike, 0 padding.
        length: int32[], positions in use.
        history_length: int32[], how many of them are initial history.
        hidden: float32[width], f_sta's state after the latest interaction.
        key_values: f_sta's cache, float32[W, width] of each block; beyond `length` it means nothing.
    """

    time: jax.Array
    user: jax.Array
    items: jax.Array
    responses: jax.Array
    length: jax.Array
    history_length: jax.Array
    hidden: jax.Array
    key_values: KeyValues

    @property
    def session_length(self) -> jax.Array:
        """Interactions that the session appended, int32[]."""
        return self.length - self.history_length


@struct.dataclass
class Observation:
    """What the agent sees: the window of W = history_length + session_capacity positions, left-aligned.

    Attributes:
        user: int32[].
        items: int32[W], initial history, then the session; -1 pads.
        responses: int8[W]; 1 like, -1 dislike, 0 padding.
        length: int32[], positions in use.
    """

    user: jax.Array
    items: jax.Array
    responses: jax.Array
    length: jax.Array


class ObservationSpace(spaces.Dict):
    """Space of `Observation`: its samples are of that type, and it contains them."""

    def sample(self, key: jax.Array) -> Observation:
        """A point of the space: an Observation with independent random fields."""
        return Observation(**super().sample(key))


class HeldParams:
    """Default params of an environment. Equal to itself alone, so that jit never takes another dataset's."""

    def __init__(self, params: EnvParams) -> None:
        self.params = params


@dataclass(frozen=True, repr=False)
class UserSimulator(environment.Environment):
    """The environment. Its fields are static: environments with equal fields are equal and compile once.

    Action: int32[] item. Reward: float32[], 1 for a like, 0 for a dislike (Eq. 9). An invalid action (outside
    the catalogue, or masked) is an `InputError` where its value is known; inside jit it earns 0, is not
    appended, and takes its time. `info` of a step:

        response             `jaxsim.Response`, what the user did (like 0 for an invalid action)
        votes                int8[3], f_mat, f_sim, f_sta
        invalid_action       bool[]
        terminated, truncated  bool[], also returned
        final_observation    `Observation` after the step, before an automatic reset

    Attributes:
        sasrec: architecture of the statistic model.
        num_users: U.
        history_length: longest initial history.
        session_capacity: most interactions that a session can append.
        semantics: "paper" or "released".
        repeats: "mask" forbids items of the window, "allow" does not.
        catalogue: how item pairs are compared, "tables" or "features" (`PairTables`, `ItemFeatures`).
        prefixes: whence a reset takes f_sta's reading of the initial history: a "table" of all users, or
            "encode" for anew each time.
        defaults: params to use where none are passed.
    """

    sasrec: SASRec
    num_users: int
    history_length: int = 50
    session_capacity: int = 100
    semantics: str = "paper"
    repeats: str = "mask"
    catalogue: Literal["tables", "features"] = "tables"
    prefixes: Literal["table", "encode"] = "table"
    defaults: HeldParams | None = None

    def __repr__(self) -> str:
        """What it simulates and how, in one line."""
        return (
            f"UserSimulator(num_items={self.num_items}, num_users={self.num_users}, "
            f"history_length={self.history_length}, session_capacity={self.session_capacity}, "
            f"semantics={self.semantics!r}, repeats={self.repeats!r}, catalogue={self.catalogue!r}, "
            f"prefixes={self.prefixes!r})"
        )

    @property
    def name(self) -> str:
        """Name and version of the behaviour."""
        return ENVIRONMENT_ID

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return self.sasrec.num_items

    @property
    def num_actions(self) -> int:
        """N, one action an item."""
        return self.num_items

    @property
    def window(self) -> int:
        """W, positions of the observation."""
        return self.history_length + self.session_capacity

    @property
    def default_params(self) -> EnvParams:
        """Those of an environment made by `gymnax.make`; others have none, for params hold a dataset."""
        if self.defaults is None:
            raise InputError("pass the params that jaxsim.make returned: they hold the dataset")
        return self.defaults.params

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Items."""
        return spaces.Discrete(self.num_items)

    def observation_space(self, params: EnvParams | None = None) -> ObservationSpace:
        """See `Observation`."""
        return ObservationSpace(
            {
                "user": spaces.Box(0, self.num_users - 1, (), jnp.int32),
                "items": spaces.Box(-1, self.num_items - 1, (self.window,), jnp.int32),
                "responses": spaces.Box(-1, 1, (self.window,), jnp.int8),
                "length": spaces.Box(0, self.window, (), jnp.int32),
            }
        )

    # ---- the MDP -------------------------------------------------------------------------------------------

    def reset(
        self, key: jax.Array, params: EnvParams | None = None
    ) -> tuple[Observation, EnvState]:
        """Start a session of a user drawn uniformly from `params.session_users`."""
        check_key(key)
        return self._bare()._reset(key, self.default_params if params is None else params)

    @functools.partial(jax.jit, static_argnames=("self",))
    def _reset(self, key: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        return self.reset_env(key, params)

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        """`reset`, not jitted."""
        return self._begin(_draw_user(key, params), params)

    def reset_user(self, user: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        """Start a session of a given user, int32[]; inside jit, the nearest one if he does not exist.

        Raises:
            InputError: not one integer, or where its value is known, no user of the dataset.
        """
        user = integers("user", user, rank=0)
        if known(user):
            check_range("user", user, 0, self.num_users, "the dataset's users")
        return self._bare()._reset_user(to_int32(user), params)

    @functools.partial(jax.jit, static_argnames=("self",))
    def _reset_user(self, user: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        return self._begin(jnp.clip(user, 0, self.num_users - 1), params)

    def _begin(self, user: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        """The first observation and state of a user's session."""
        state = self._start(user, params)
        padding = ((0, self.session_capacity), (0, 0))
        state = state.replace(
            key_values=jax.tree.map(lambda x: jnp.pad(x, padding), state.key_values)
        )
        return self.get_obs(state), state

    def _start(self, user: jax.Array, params: EnvParams) -> EnvState:
        """A new session of a user; the cache has the H positions of the initial history alone."""
        histories = params.histories
        items, likes, length = histories.items[user], histories.likes[user], histories.length[user]
        if histories.prefix is None:
            prefix = read_history(self.sasrec, params.sasrec, items, likes, length)
        else:
            prefix = jax.tree.map(lambda x: x[user], histories.prefix)
        padding = (0, self.session_capacity)
        return EnvState(
            time=jnp.int32(0),
            user=jnp.asarray(user, jnp.int32),
            items=jnp.pad(items, padding, constant_values=-1),
            responses=jnp.pad(jnp.where(items >= 0, signed(likes), jnp.int8(0)), padding),
            length=length,
            history_length=length,
            hidden=prefix.hidden,
            key_values=prefix.key_values,
        )

    def step(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams | None = None
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset; gymnax's six values.

        The same results as gymnax's own `step`, but for what lies in the cache beyond `length`: that one selects
        between two whole states, this one under `jax.vmap` writes to those sessions alone that end (see
        `jaxsim.reset_where`). Gradients with respect to state or params do not pass.
        """
        check_key(key)
        action = integers("action", action, rank=0)
        self._check_action(state, action)
        action = to_int32(action)
        return self._bare()._step(
            key, state, action, self.default_params if params is None else params
        )

    @functools.partial(jax.jit, static_argnames=("self",))
    def _step(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        key_step, key_reset = jax.random.split(key)
        final_obs, stepped, reward, terminated, info = self.step_env(
            key_step, state, action, params
        )
        truncated = self.is_truncated(stepped, params)
        user = _draw_user(key_reset, params)
        state = reset_where(terminated | truncated, stepped, user, params, self._start)
        info = {
            **info,
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": final_obs,
        }
        return self.get_obs(state), state, reward, terminated, truncated, info

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One step without reset: observation, state, reward, terminated, info."""
        key_response, key_departure = jax.random.split(key)
        action = to_int32(integers("action", action, rank=0))
        invalid = self._is_invalid(state, action)
        candidate = jnp.clip(action, 0, self.num_items - 1)
        logit = self._sta_logit(params, state.hidden, candidate, state.user)
        decision = ensemble.decide(
            key_response,
            params.catalogue,
            candidate,
            state.items,
            state.responses,
            logit,
            self.semantics,
        )
        response = jax.tree.map(lambda x: jnp.where(invalid, 0, x), decision.response)
        next_state = self._append(params, state, candidate, response.like, ~invalid)
        terminated = jax.random.bernoulli(key_departure, params.departure_probability)
        info = {"response": response, "votes": decision.votes, "invalid_action": invalid}
        reward = response.like.astype(jnp.float32)
        return self.get_obs(next_state), next_state, reward, terminated, info

    def _is_invalid(self, state: EnvState, action: jax.Array) -> jax.Array:
        in_catalogue = (action >= 0) & (action < self.num_items)
        repeated = (state.items == action).any() & (self.repeats == "mask")
        return ~in_catalogue | repeated | (state.session_length >= self.session_capacity)

    def _check_action(self, state: EnvState, action: jax.Array) -> None:
        """Refuse an invalid action whose value is known, and the states of several sessions."""
        if jnp.ndim(state.time) != 0:
            raise InputError(
                "state is of several sessions: use jax.vmap(env.step, (0, 0, 0, None))"
            )
        if known(action):
            check_range("action", action, 0, self.num_items, "the catalogue's items")
        if self.repeats == "allow" or not known(action, state.items):
            return
        if (np.asarray(state.items) == int(action)).any():
            raise InputError(
                f"action {int(action)} was recommended or is in the history: choose an item that env.action_mask "
                'allows, or make the environment with repeats="allow"'
            )

    def _append(
        self,
        params: EnvParams,
        state: EnvState,
        item: jax.Array,
        like: jax.Array,
        valid: jax.Array,
    ) -> EnvState:
        """The state after one interaction, or after none where it is not valid."""
        # Writing past the end drops the write: that is how an invalid action appends nothing.
        slot = jnp.where(valid, state.length, self.window)
        hidden, key_values = self.sasrec.apply(
            params.sasrec, item, like, state.key_values, slot, method="encode_token"
        )
        return state.replace(
            time=state.time + 1,
            items=state.items.at[slot].set(item, mode="drop"),
            responses=state.responses.at[slot].set(signed(like), mode="drop"),
            length=state.length + valid,
            key_values=key_values,
            hidden=jnp.where(valid, hidden, state.hidden),
        )

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> Observation:
        """The observation of a state."""
        return Observation(state.user, state.items, state.responses, state.length)

    def window_of(
        self,
        user: jax.Array,
        session_items: jax.Array,
        session_likes: jax.Array,
        session_length: jax.Array,
        params: EnvParams,
    ) -> Observation:
        """The observation of a user's session: int32[], int32[S], int8[S], int32[].

        What is recorded of a session suffices to rebuild what the agent saw, so a replay need not keep it.
        """
        histories, user = params.histories, jnp.clip(user, 0, self.num_users - 1)
        start = histories.length[user]
        position = jnp.arange(self.window, dtype=jnp.int32)
        in_session = position >= start
        in_use = position < start + session_length
        index = jnp.clip(position - start, 0, self.session_capacity - 1)
        padding = (0, self.session_capacity)
        items = jnp.where(in_session, session_items[index], jnp.pad(histories.items[user], padding))
        likes = jnp.where(in_session, session_likes[index], jnp.pad(histories.likes[user], padding))
        return Observation(
            user=jnp.asarray(user, jnp.int32),
            items=jnp.where(in_use, items, -1),
            responses=jnp.where(in_use, signed(likes), jnp.int8(0)),
            length=start + session_length,
        )

    def is_truncated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the session has reached its longest length."""
        return state.time >= jnp.minimum(params.max_steps_in_episode, self.session_capacity)

    def _bare(self) -> "UserSimulator":
        """The environment without default params, which jit's cache would keep alive."""
        return self if self.defaults is None else replace(self, defaults=None)

    # ---- what agents and people ask ------------------------------------------------------------------------

    def action_mask(self, obs: Observation, params: EnvParams | None = None) -> jax.Array:
        """Items that may be recommended after `obs`, bool[N]."""
        allowed = jnp.ones(self.num_items, bool)
        if self.repeats == "allow":
            return allowed
        seen = jnp.where(obs.items >= 0, obs.items, self.num_items)
        return allowed.at[seen].set(False, mode="drop")

    def expected_response(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Expected reward of every item in a state, coins averaged, float32[N]; masks are not applied."""
        evidence = ensemble.gather_evidence(params.catalogue, state.items, state.responses)
        return self.expected_likes(evidence, state, params)

    def expected_likes(
        self, evidence: ensemble.Evidence, state: EnvState, params: EnvParams
    ) -> jax.Array:
        """`expected_response` from evidence kept up to date by `jaxsim.add_evidence`, float32[N]."""
        logits = self.sasrec.apply(params.sasrec, state.hidden, state.user, method="all_logits")
        return ensemble.expected_likes(evidence, logits, self.semantics)

    def respond(
        self,
        key: jax.Array,
        history_items: jax.Array,
        history_labels: jax.Array,
        candidate: jax.Array,
        params: EnvParams,
        user: jax.Array | int = -1,
        reasons: bool = False,
    ) -> Decision:
        """The simulator's decision on a candidate, given any history. A pure function: jit and vmap freely.

        f_mat and f_sim judge on the whole history, f_sta on its latest W interactions. Inside jit, where values
        cannot be refused, a history item outside the catalogue is skipped, an unknown user takes the mean, and a
        candidate outside the catalogue gets no vote, no evidence and no reward.

        Args:
            key: PRNG key of the coins.
            history_items: int32[H], any H, -1 pads anywhere.
            history_labels: int8[H], 1 like, 0 dislike (or, as in an observation, -1 dislike and 0 padding).
            candidate: int32[].
            params: of `jaxsim.make`.
            user: int32[], for f_sta's user effect; -1 takes the mean.
            reasons: also return `Decision.reasons` (static).

        Raises:
            InputError: wrong types or ranks; where values are known, also wrong values.
        """
        check_key(key)
        items, labels, candidate, user = decision_arguments(
            history_items, history_labels, candidate, user, self.num_items, self.num_users
        )
        items, candidate, user = (to_int32(x) for x in (items, candidate, user))
        labels = jnp.asarray(labels > 0, jnp.int8)
        return self._bare()._respond(key, items, labels, candidate, params, user, reasons)

    @functools.partial(jax.jit, static_argnames=("self", "reasons"))
    def _respond(
        self,
        key: jax.Array,
        items: jax.Array,
        likes: jax.Array,
        candidate: jax.Array,
        params: EnvParams,
        user: jax.Array,
        reasons: bool,
    ) -> Decision:
        exists = (candidate >= 0) & (candidate < self.num_items)
        candidate = jnp.clip(candidate, 0, self.num_items - 1)
        # Of a candidate that does not exist, no history item is evidence.
        items = jnp.where(exists & (items >= 0) & (items < self.num_items), items, -1)
        user = jnp.where((user >= 0) & (user < self.num_users), user, -1)
        hidden = self._encode_latest(params, items, likes)
        logit = self._sta_logit(params, hidden, candidate, user)
        decision = ensemble.decide(
            key,
            params.catalogue,
            candidate,
            items,
            likes,
            jnp.where(exists, logit, -jnp.inf),
            self.semantics,
            reasons,
        )
        votes, reward, response = jax.tree.map(
            lambda x: jnp.where(exists, x, 0).astype(x.dtype),
            (decision.votes, decision.reward, decision.response),
        )
        return replace(decision, votes=votes, reward=reward, response=response)

    def _encode_latest(self, params: EnvParams, items: jax.Array, likes: jax.Array) -> jax.Array:
        """f_sta's state after the latest W interactions of a history with pads anywhere, float32[width]."""
        if items.shape[0] == 0:
            return jnp.zeros(self.sasrec.width, jnp.float32)
        order = jnp.argsort(items < 0, stable=True)  # interactions first, in their order
        length = jnp.sum(items >= 0)
        size = min(self.window, items.shape[0])
        taken = order[jnp.maximum(length - size, 0) + jnp.arange(size)]
        hidden, _ = self.sasrec.apply(params.sasrec, items[taken], likes[taken], method="encode")
        return jnp.where(length > 0, hidden[jnp.clip(length - 1, 0, size - 1)], 0)

    def _sta_logit(
        self, params: EnvParams, hidden: jax.Array, candidate: jax.Array, user: jax.Array
    ) -> jax.Array:
        return self.sasrec.apply(params.sasrec, hidden, candidate, user, method="logit")


def signed(like: jax.Array) -> jax.Array:
    """1 for a like, otherwise -1, int8[...]."""
    return jnp.where(like > 0, jnp.int8(1), jnp.int8(-1))


def read_history(
    sasrec: SASRec, variables: dict[str, Any], items: jax.Array, likes: jax.Array, length: jax.Array
) -> Prefix:
    """f_sta's reading of a left-aligned history int32[H], int8[H] of int32[] interactions."""
    hidden, key_values = sasrec.apply(variables, items, likes, method="encode")
    latest = hidden[jnp.maximum(length - 1, 0)]
    return Prefix(hidden=jnp.where(length > 0, latest, 0), key_values=key_values)


def _draw_user(key: jax.Array, params: EnvParams) -> jax.Array:
    index = jax.random.randint(key, (), 0, params.session_users.shape[0], jnp.int32)
    return params.session_users[index]


Policy = Callable[[jax.Array, Observation, EnvParams], jax.Array]
