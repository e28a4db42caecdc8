"""The session as a Markov decision process, behind gymnax's interface.

Each session has one user, drawn at random. At each step the agent recommends one item. The simulated user likes it
if at least two of three votes are for it (`jaxsim.ensemble`). Each vote depends on the user's initial history and
on the session so far. After each step the user leaves with a probability that is constant, or with
`departure="fitted"` depends on the session (terminated). A session that reaches its longest length is cut off
(truncated). With `visits=True` an episode is a life of several sessions (`jaxsim.visits`): a user who leaves may
return, and then the episode goes on.

Modelling assumptions. The history only grows: it holds the latest `history_length` training interactions, then
the session. The user consumes a recommended item at once, and it enters the history with the response. A constant
departure does not depend on the recommendations. Users differ only in their history and in f_sta's user effect.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from jaxsim import rewards
from jaxsim.auto_reset import reset_where
from jaxsim.checks import (
    check_action,
    check_key,
    check_range,
    decision_arguments,
    integers,
    is_concrete,
    to_int32,
)
from jaxsim.departure import Departure, DepartureKind
from jaxsim.ensemble import Decision, Evidence
from jaxsim.errors import InputError
from jaxsim.leaving import departure_of, leave, return_of
from jaxsim.own_users import OwnUser, UserModel
from jaxsim.sasrec import CacheDtype, SASRec
from jaxsim.satiation import Satiation
from jaxsim.signals import history_values
from jaxsim.taste_users import DrawnTaste, Taste
from jaxsim.types import EnvParams, EnvState, HeldParams, Observation, ObservationSpace
from jaxsim.user_models import (
    OUTCOMES,
    TASTE_SEMANTICS,
    Arrival,
    Fields,
    Interaction,
    Question,
    Votes,
)
from jaxsim.visits import Return, first_visit
from jaxsim.windows import SessionSoFar, all_items_but, rebuilt, signed

ENVIRONMENT_ID = "UserSimulator-v0"
# What `repr` names always, and options with their values where they are off.
_NAMED = (
    "num_items", "num_users", "history_length", "session_capacity", "semantics", "repeats", "catalogue",
    "prefixes",
)  # fmt: skip
_OPTIONS = {
    "exposure": False, "departure": "constant", "visits": False, "horizon_days": None, "own_model": None,
    "reward": "like", "satiation": None, "cache_dtype": "float32",
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class UserSimulator(environment.Environment):
    """The environment. Its fields are static: environments with equal fields are equal and compile once.

    Action: int32[], an item. Reward: float32[], 1 for a like, 0 for a dislike (Eq. 9), or that of `reward`. An
    action is invalid if it is outside the catalogue or the mask forbids it. Outside jit it raises an `InputError`.
    Inside jit, where its value is not available, it earns 0 and is not appended, but time advances. `info`:

        response             `jaxsim.Response`, the user's response (0 throughout for an invalid action)
        votes                int8[3], f_mat, f_sim, f_sta; under "calibrated" and "soft" there are none
        probability          float32[], of a like; only under "calibrated" and "soft"
        departure_probability  float32[], of leaving after this step; only under departure="fitted"
        session, day, left, returned, gap_days, return_probability  only under visits=True, see docs/visits.md
        invalid_action       bool[]
        terminated, truncated  bool[], also returned
        final_observation    `Observation` after the step, before an automatic reset

    Attributes:
        sasrec: architecture of the statistic model.
        num_users: U.
        history_length, session_capacity: the longest initial history, and the most that a session appends.
        semantics: "paper", "released", "calibrated" or "soft"; see `jaxsim.make`.
        repeats: "mask" forbids the items of the window, "allow" permits them.
        catalogue: how pairs of items are compared, "tables" or "features" (`PairTables`, `ItemFeatures`).
        prefixes: where reset gets f_sta's encoded history: from a "table" of all users, or "encode" to compute it
            at each reset.
        taste: whether the taste of a user of the taste model is the "posterior", or "latent"; see `jaxsim.make`.
        exposure, departure: corrections for what users would have chosen, and when they leave; see `jaxsim.make`.
        visits, horizon_days: whether users return, and the days of a life; None without. See `jaxsim.make`.
        own_model: a user's own model of users in place of the votes and the taste model; see `jaxsim.UserModel`.
        reward: what a response earns, "like", "rating", "duration" or a function of it; see `jaxsim.make`.
        satiation, cache_dtype: how users tire, and the type of f_sta's cached keys and values; see `jaxsim.make`.
        defaults: params to use when none are passed.
    """

    sasrec: SASRec
    num_users: int
    history_length: int = 50
    session_capacity: int = 100
    semantics: str = "paper"
    repeats: str = "mask"
    catalogue: Literal["tables", "features"] = "tables"
    prefixes: Literal["table", "encode"] = "table"
    taste: Literal["posterior", "latent"] = "posterior"
    exposure: bool = False
    departure: DepartureKind = "constant"
    visits: bool = False
    horizon_days: float | None = None
    own_model: UserModel | None = None
    reward: rewards.Reward = "like"
    satiation: Satiation = None
    cache_dtype: CacheDtype = "float32"
    defaults: HeldParams | None = None

    def __repr__(self) -> str:
        """The settings in one line, without the weights' architecture; options only where they are on."""
        names = [*_NAMED, *(["taste"] if self.draws_taste else [])]
        names += [name for name, off in _OPTIONS.items() if getattr(self, name) != off]
        return f"UserSimulator({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def name(self) -> str:
        """Name and version of the environment's behaviour."""
        return ENVIRONMENT_ID

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return self.sasrec.num_items

    @property
    def num_actions(self) -> int:
        """N, one action for each item."""
        return self.num_items

    @property
    def user_model(self) -> Votes | Taste | OwnUser:
        """How the user decides and what a session keeps for it."""
        if self.own_model is not None:
            return OwnUser(self.own_model, self.num_items, self.semantics)
        if self.semantics in TASTE_SEMANTICS:
            model = DrawnTaste if self.draws_taste else Taste
            return model(self.window, self.history_length, self.semantics, self.satiation)
        settings = self.window, self.history_length, self.semantics, self.cache_dtype
        return Votes(self.sasrec, *settings)

    @property
    def draws_taste(self) -> bool:
        """Whether each session draws the taste of its user, and so needs a key to begin."""
        return self.taste == "latent" and self.semantics in TASTE_SEMANTICS

    @property
    def end_depends_on_items(self) -> bool:
        """Whether the step at which an episode ends may depend on what is recommended."""
        return self.departure == "fitted" or self.visits

    @property
    def window(self) -> int:
        """W, the number of positions in an observation."""
        return self.history_length + self.session_capacity

    @property
    def default_params(self) -> EnvParams:
        """The params of an environment from `gymnax.make`.

        Raises:
            InputError: the environment comes from `jaxsim.make`, which returns its params separately.
        """
        if self.defaults is None:
            raise InputError("pass the params that jaxsim.make returned: they hold the dataset")
        return self.defaults.params

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """The N items."""
        return spaces.Discrete(self.num_items)

    def observation_space(self, params: EnvParams | None = None) -> ObservationSpace:
        """The space of `Observation`."""
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
        """`reset` without jit."""
        return self._begin(self._arrival(_draw_user(key, params), key), params)

    def reset_user(
        self, user: jax.Array, params: EnvParams, key: jax.Array | None = None
    ) -> tuple[Observation, EnvState]:
        """Start a session of a given user, int32[].

        Inside jit, an index outside [0, U) is clipped to the nearest user.

        Args:
            user: int32[].
            params: of `jaxsim.make`.
            key: PRNG key from which `taste="latent"` draws the user's taste, as `reset` does from its own; without
                that option it may be None.

        Raises:
            InputError: not one integer, (outside jit) not a user of the dataset, or no key to draw the taste from.
        """
        user = integers("user", user, rank=0)
        if is_concrete(user):
            check_range("user", user, 0, self.num_users, "the dataset's users")
        if key is not None:
            check_key(key)
        elif self.draws_taste:
            raise InputError('taste="latent" draws the user\'s taste: pass reset_user a key=')
        return self._bare()._reset_user(self._arrival(to_int32(user), key), params)

    @functools.partial(jax.jit, static_argnames=("self",))
    def _reset_user(self, arrival: Arrival, params: EnvParams) -> tuple[Observation, EnvState]:
        user = jnp.clip(arrival.user, 0, self.num_users - 1)
        return self._begin(arrival._replace(user=user), params)

    def _arrival(self, user: jax.Array, key: jax.Array | None) -> Arrival:
        return Arrival(user, key if self.draws_taste else None)

    def _begin(self, arrival: Arrival, params: EnvParams) -> tuple[Observation, EnvState]:
        """The first observation and state of a session."""
        state = self.user_model.pad(params, self._start(arrival, params))
        return self.get_obs(state), state

    def _start(self, arrival: Arrival, params: EnvParams) -> EnvState:
        """A new session; what the user model keeps has only the H positions of the initial history."""
        histories, user = params.histories, arrival.user
        items, likes, length = histories.items[user], histories.likes[user], histories.length[user]
        padding = (0, self.session_capacity)
        return EnvState(
            time=jnp.int32(0),
            user=jnp.asarray(user, jnp.int32),
            items=jnp.pad(items, padding, constant_values=-1),
            responses=jnp.pad(jnp.where(items >= 0, signed(likes), jnp.int8(0)), padding),
            length=length,
            history_length=length,
            visits=first_visit() if self.visits else None,
            **self.user_model.start(params, arrival),
        )

    def step(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams | None = None
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset, returning gymnax's six values.

        The results equal those of gymnax's own `step`, except for the cache beyond `length`. gymnax computes a
        fresh state for every session and selects between the two; under `jax.vmap` this method writes only to the
        sessions that end (see `jaxsim.auto_reset`). Gradients with respect to state and params are zero.

        Args:
            key: one PRNG key.
            state: of `reset` or of the previous step.
            action: int32[], an item.
            params: of `jaxsim.make`.

        Returns:
            Observation, state, reward float32[], terminated bool[], truncated bool[] and `info`, as the class
            describes. After the end of a session, observation and state are those of a new one.

        Raises:
            InputError: wrong types, the states of several sessions, or (outside jit) an invalid action.
        """
        check_key(key)
        action = integers("action", action, rank=0)
        check_action(state, action, self.num_items, self.repeats)
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
        arrival = self._arrival(_draw_user(key_reset, params), key_reset)
        state = reset_where(terminated | truncated, stepped, arrival, params, self._start)
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
        decision = self.user_model.decide(key_response, params, state, candidate)
        decision = rewards.earned(self.reward, decision)
        response, reward = jax.tree.map(
            lambda x: jnp.where(invalid, 0, x).astype(x.dtype), (decision.response, decision.reward)
        )
        # JAX drops a write past the end of an array, so an invalid action appends nothing.
        slot = jnp.where(invalid, self.window, state.length)
        new = Interaction(candidate, response.like, ~invalid, slot, key, response)
        next_state = self._append(params, state, new)
        info = {"response": response, "invalid_action": invalid}
        info |= self.user_model.info(decision)
        next_state, terminated, end = leave(key_departure, next_state, params, self.horizon_days)
        return self.get_obs(next_state), next_state, reward, terminated, {**info, **end}

    def _is_invalid(self, state: EnvState, action: jax.Array) -> jax.Array:
        in_catalogue = (action >= 0) & (action < self.num_items)
        repeated = (state.items == action).any() & (self.repeats == "mask")
        return ~in_catalogue | repeated | (state.session_length >= self.session_capacity)

    def _append(
        self, params: EnvParams, state: EnvState, new: Interaction, fields: Fields | None = None
    ) -> EnvState:
        """The state after one interaction, or after none if it is not valid; `fields` are the user model's."""
        if fields is None:
            fields = self.user_model.append(params, state, new)
        return state.replace(
            time=state.time + 1,
            items=state.items.at[new.slot].set(new.item, mode="drop"),
            responses=state.responses.at[new.slot].set(signed(new.like), mode="drop"),
            length=state.length + new.valid,
            **fields,
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
        """The observation at one point of a session, rebuilt from the session's own interactions.

        A replay buffer therefore need not store observations.

        Args:
            user: int32[].
            session_items: int32[S], items of the session, S at most `session_capacity`.
            session_likes: int8[S], 1 like, 0 dislike.
            session_length: int32[], how many of them precede the observation.
            params: of `jaxsim.make`.
        """
        session = SessionSoFar(session_items, session_likes, session_length)
        user = jnp.clip(user, 0, self.num_users - 1)
        return rebuilt(params.histories, user, session, self.session_capacity)

    def is_truncated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the session has reached its longest length."""
        return state.time >= jnp.minimum(params.max_steps_in_episode, self.session_capacity)

    def _bare(self) -> "UserSimulator":
        """The environment without default params, because jit's cache would keep them in memory."""
        return self if self.defaults is None else replace(self, defaults=None)

    # ---- queries -------------------------------------------------------------------------------------------

    def action_mask(self, obs: Observation, params: EnvParams | None = None) -> jax.Array:
        """Which items may be recommended after `obs`, bool[N]."""
        return all_items_but(self.masked_items(obs), self.num_items)

    def masked_items(self, obs: Observation) -> jax.Array:
        """The items that `action_mask` excludes, int32[M]; -1 pads, and items may be there twice."""
        return obs.items if self.repeats == "mask" else jnp.zeros(0, jnp.int32)

    def expected_response(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Expected reward of every item, averaged over the coins, float32[N]; the mask is not applied.

        With `taste="latent"` it is that of a user with the session's drawn taste.
        """
        evidence = self.user_model.begin_evidence(params, state.items, state.responses)
        return self.expected_likes(evidence, state, params)

    def expected_likes(
        self, evidence: Evidence | None, state: EnvState, params: EnvParams
    ) -> jax.Array:
        """`expected_response` from evidence that `jaxsim.add_evidence` keeps up to date, float32[N]."""
        if self.reward == "like":
            return self.user_model.expected(params, state, evidence)
        outlook = self.user_model.outlook(params, state, evidence)
        return rewards.expected(self.reward, outlook, self.semantics)

    def departure_of(self, state: EnvState, params: EnvParams) -> Departure:
        """The chance that the user leaves after the step that led to `state`, and why (`jaxsim.departure`)."""
        return departure_of(state, params)

    def return_of(self, state: EnvState, params: EnvParams) -> Return:
        """The chance that the user returns if the session ends in `state`, and why (`jaxsim.visits`)."""
        return return_of(state, params)

    def respond(
        self,
        key: jax.Array,
        history_items: jax.Array,
        history_labels: jax.Array,
        candidate: jax.Array,
        params: EnvParams,
        user: jax.Array | int = -1,
        reasons: bool = False,
        history_signals: Mapping[str, jax.Array] | None = None,
    ) -> Decision:
        """The simulator's decision on a candidate, given any history. A pure function: use jit and vmap freely.

        There is no session here, and so no drawn taste: with `taste="latent"` it is the posterior's decision.

        f_mat and f_sim read the whole history, f_sta its latest W interactions. Inside jit, where values cannot be
        checked, a history item outside the catalogue is skipped, an unknown user takes the mean effect, and a
        candidate outside the catalogue gets no votes, no evidence and no reward.

        Args:
            key: PRNG key of the coins.
            history_items: int32[H], any H, -1 pads anywhere.
            history_labels: int8[H], 1 like, 0 dislike (or, as in an observation, -1 dislike and 0 padding).
            candidate: int32[].
            params: of `jaxsim.make`.
            user: int32[], for f_sta's user effect; -1 takes the mean.
            reasons: also return `Decision.reasons` (static).
            history_signals: "rating" and "duration" to float32[H] each, NaN where one is not known; those that are
                left out are taken to be typical of the labels.

        Raises:
            InputError: wrong types or ranks; outside jit also wrong values.
        """
        check_key(key)
        items, labels, candidate, user = decision_arguments(
            history_items, history_labels, candidate, user, self.num_items, self.num_users
        )
        items, candidate, user = (to_int32(x) for x in (items, candidate, user))
        labels = jnp.asarray(labels > 0, jnp.int8)
        signals = None if params.taste is None else params.taste.signals
        values = history_values(signals, history_signals or {}, len(items))
        return self._bare()._respond(key, items, labels, candidate, params, user, reasons, values)

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
        values: jax.Array | None,
    ) -> Decision:
        exists = (candidate >= 0) & (candidate < self.num_items)
        candidate = jnp.clip(candidate, 0, self.num_items - 1)
        # No history item is evidence about a candidate that does not exist.
        items = jnp.where(exists & (items >= 0) & (items < self.num_items), items, -1)
        user = jnp.where((user >= 0) & (user < self.num_users), user, -1)
        question = Question(items, likes, candidate, exists, user, values)
        decision = self.user_model.respond(key, params, question, reasons)
        decision = rewards.earned(self.reward, decision)
        outcome = {name: getattr(decision, name) for name in OUTCOMES}
        outcome = jax.tree.map(lambda x: jnp.where(exists, x, 0).astype(x.dtype), outcome)
        return replace(decision, **outcome)


def _draw_user(key: jax.Array, params: EnvParams) -> jax.Array:
    index = jax.random.randint(key, (), 0, params.session_users.shape[0], jnp.int32)
    return params.session_users[index]
