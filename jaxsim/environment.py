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
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxsim import ensemble
from jaxsim.catalogue import Catalogue
from jaxsim.cli import InputError
from jaxsim.ensemble import Decision
from jaxsim.sasrec import KeyValues, SASRec


@struct.dataclass
class Histories:
    """Initial history of each of U users, H = history_length.

    Attributes:
        items: int32[U, H], left-aligned, -1 pads.
        likes: int8[U, H], 1 like, 0 dislike or padding.
        length: int32[U].
        key_values: f_sta's cache of the history, float32[U, blocks, H, width] each.
        hidden: float32[U, width], f_sta's state after the history; zero if it is empty.
    """

    items: jax.Array
    likes: jax.Array
    length: jax.Array
    key_values: KeyValues
    hidden: jax.Array


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Everything that a jitted program reads: always an argument, never closed over.

    Attributes:
        max_steps_in_episode: int32[], truncation; `session_capacity` bounds it.
        departure_probability: float32[], chance that the user leaves after a step.
        session_users: int32[S], the users who may start a session.
        catalogue: item-pair tables.
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
    """One session. What lies beyond `session_length` in an array is left over and means nothing.

    Attributes:
        time: int32[], steps taken.
        user: int32[].
        session_items: int32[S], items appended.
        session_likes: int8[S], the responses to them.
        session_length: int32[], how many were appended.
        key_values: f_sta's cache of the session, float32[blocks, S, width] each.
        hidden: float32[width], f_sta's state after the latest interaction.
    """

    time: jax.Array
    user: jax.Array
    session_items: jax.Array
    session_likes: jax.Array
    session_length: jax.Array
    key_values: KeyValues
    hidden: jax.Array


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


@dataclass(frozen=True)
class UserSimulator(environment.Environment):
    """The environment. Its fields are static: environments with equal fields are equal and compile once.

    Action: int32[] item. Reward: float32[], 1 for a like, 0 for a dislike (Eq. 9). An invalid action (outside
    the catalogue, or masked) earns 0, is not appended, and takes its time. `info` of a step:

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
    """

    sasrec: SASRec
    num_users: int
    history_length: int = 50
    session_capacity: int = 100
    semantics: str = "paper"
    repeats: str = "mask"

    @property
    def name(self) -> str:
        """Name and version of the behaviour."""
        return "UserSimulator-v0"

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
        """Not available: the params hold a dataset."""
        raise InputError("pass the params that jaxsim.make returned: they hold the dataset")

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

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        """Start a session of a user drawn uniformly from `params.session_users`."""
        index = jax.random.randint(key, (), 0, params.session_users.shape[0])
        return self.reset_user(params.session_users[index], params)

    def reset_user(self, user: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        """Start a session of a given user, int32[]."""
        cache = (self.sasrec.num_blocks, self.session_capacity, self.sasrec.width)
        state = EnvState(
            time=jnp.int32(0),
            user=jnp.asarray(user, jnp.int32),
            session_items=jnp.full(self.session_capacity, -1, jnp.int32),
            session_likes=jnp.zeros(self.session_capacity, jnp.int8),
            session_length=jnp.int32(0),
            key_values=KeyValues(jnp.zeros(cache, jnp.float32), jnp.zeros(cache, jnp.float32)),
            hidden=params.histories.hidden[user],
        )
        return self.get_obs(state, params), state

    @functools.partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset; gymnax's six values.

        The same results as gymnax's own `step`, but a reset only sets the session's length to zero: it does
        not rewrite the arrays of the state, which would cost more than the step itself.
        """
        key_step, key_reset = jax.random.split(key)
        final_obs, stepped, reward, terminated, info = self.step_env(
            key_step, state, action, params
        )
        truncated = self.is_truncated(stepped, params)
        done = terminated | truncated
        _, fresh = self.reset_env(key_reset, params)
        next_state = stepped.replace(
            time=jnp.where(done, fresh.time, stepped.time),
            user=jnp.where(done, fresh.user, stepped.user),
            session_length=jnp.where(done, fresh.session_length, stepped.session_length),
            hidden=jnp.where(done, fresh.hidden, stepped.hidden),
        )
        info = {
            **info,
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": final_obs,
        }
        obs = self.get_obs(next_state, params)
        return obs, next_state, reward, terminated, truncated, info

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One step without reset: observation, state, reward, terminated, info."""
        key_response, key_departure = jax.random.split(key)
        action = jnp.asarray(action, jnp.int32)
        chex.assert_rank(action, 0)
        obs = self.get_obs(state, params)
        in_catalogue = (action >= 0) & (action < self.num_items)
        repeated = (obs.items == action).any() & (self.repeats == "mask")
        invalid = ~in_catalogue | repeated | (state.session_length >= self.session_capacity)
        candidate = jnp.clip(action, 0, self.num_items - 1)
        logit = self._sta_logit(params, state.hidden, candidate, state.user)
        decision = ensemble.decide(
            key_response,
            params.catalogue,
            candidate,
            obs.items,
            obs.responses,
            logit,
            self.semantics,
        )
        response = jax.tree.map(lambda x: jnp.where(invalid, 0, x), decision.response)
        next_state = self._append(params, state, candidate, response.like, ~invalid)
        terminated = jax.random.bernoulli(key_departure, params.departure_probability)
        info = {"response": response, "votes": decision.votes, "invalid_action": invalid}
        reward = response.like.astype(jnp.float32)
        return self.get_obs(next_state, params), next_state, reward, terminated, info

    def _append(
        self,
        params: EnvParams,
        state: EnvState,
        item: jax.Array,
        like: jax.Array,
        valid: jax.Array,
    ) -> EnvState:
        """The state after one interaction, or after none where it is not valid."""
        prefix = jax.tree.map(lambda x: x[state.user], params.histories.key_values)
        hidden, token = self.sasrec.apply(
            params.sasrec,
            item,
            like,
            prefix,
            params.histories.length[state.user],
            state.key_values,
            state.session_length,
            method="encode_token",
        )
        # Writing past the end drops the write: that is how an invalid action appends nothing.
        slot = jnp.where(valid, state.session_length, self.session_capacity)
        return state.replace(
            time=state.time + 1,
            session_items=state.session_items.at[slot].set(item, mode="drop"),
            session_likes=state.session_likes.at[slot].set(like, mode="drop"),
            session_length=state.session_length + valid,
            key_values=jax.tree.map(
                lambda cache, new: cache.at[:, slot].set(new[:, 0], mode="drop"),
                state.key_values,
                token,
            ),
            hidden=jnp.where(valid, hidden, state.hidden),
        )

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> Observation:
        """The observation of a state."""
        assert params is not None
        return self.window_of(
            state.user, state.session_items, state.session_likes, state.session_length, params
        )

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
        histories = params.histories
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
            responses=jnp.where(in_use, 2 * (likes > 0).astype(jnp.int8) - 1, 0).astype(jnp.int8),
            length=start + session_length,
        )

    def is_truncated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the session has reached its longest length."""
        return state.time >= jnp.minimum(params.max_steps_in_episode, self.session_capacity)

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
        obs = self.get_obs(state, params)
        evidence = ensemble.gather_evidence(params.catalogue, obs.items, obs.responses)
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

        f_mat and f_sim judge on the whole history, f_sta on its latest W interactions.

        Args:
            key: PRNG key of the coins.
            history_items: int32[H], any H, -1 pads anywhere.
            history_labels: int8[H], 1 like, 0 dislike.
            candidate: int32[].
            params: of `jaxsim.make`.
            user: int32[], for f_sta's user effect; -1 takes the mean.
            reasons: also return `Decision.reasons` (static).
        """
        items = jnp.asarray(history_items, jnp.int32)
        likes = jnp.asarray(history_labels, jnp.int8)
        candidate, user = jnp.asarray(candidate, jnp.int32), jnp.asarray(user, jnp.int32)
        chex.assert_rank([items, likes, candidate, user], [1, 1, 0, 0])
        chex.assert_equal_shape([items, likes])
        hidden = self._encode_latest(params, items, likes)
        logit = self._sta_logit(params, hidden, candidate, user)
        return ensemble.decide(
            key, params.catalogue, candidate, items, likes, logit, self.semantics, reasons
        )

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


Policy = Callable[[jax.Array, Observation, EnvParams], jax.Array]
