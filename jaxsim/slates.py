"""Slates: the agent shows K items at a time, and the user chooses one of them or none.

`SlateSimulator` wraps the environment of single items, whose user, history and departure it takes. The choice is
that of `jaxsim.slate_choice`, from the log-odds that the user likes each item alone.

Modelling assumptions. The user looks at the whole slate, less at later places, and consumes the item that they
choose: so a choice is a like. Items compete, but do not change each other's scores. An item that was chosen enters
the history as a like. An item that lost against it does not enter: it may still be one that the user would like.
If none is chosen, `unchosen` says what enters:

- "examined", the default: items that the user examined, as dislikes, each with its own probability. Then every
  label that enters has the probability with which the item alone would be liked (`slate_choice.examination`). So a
  posterior that learns from the session (`taste="posterior"`) stays calibrated. Up to E interactions enter at each
  step (2 for K = 2 and 3, 3 for K = 4 to 10). The window has H + 1.5 S positions. If a user dislikes so much that
  no room is left beyond one entry for each step to come, only the first examined item enters. Steps cost more.
- "top": the item at the first place, as a dislike. One interaction enters at each step, as with single items. The
  label of the first item has the right probability. But later items enter only if they are liked, so a posterior
  gets too optimistic. A drawn taste learns nothing from answers, and loses nothing.

All K items of a slate count as shown. With `repeats="mask"` none of them may be shown again in the session: the
user could have chosen it, and did not.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces

from jaxsim import slate_choice
from jaxsim.auto_reset import reset_where
from jaxsim.checks import check_key, check_range, integers, is_concrete, to_int32
from jaxsim.dataset import Dataset
from jaxsim.ensemble import Response
from jaxsim.environment import UserSimulator, _draw_user
from jaxsim.errors import InputError
from jaxsim.leaving import leave
from jaxsim.slate_choice import Unchosen
from jaxsim.slate_history import RecordedSlates
from jaxsim.slate_settings import OfSingleItems
from jaxsim.slate_types import Choice, SlateObservation, SlateObservationSpace, SlateState
from jaxsim.slate_views import PosteriorView, View, look
from jaxsim.slate_words import describe_choice
from jaxsim.types import EnvParams, EnvState, HeldParams, ObservationSpace
from jaxsim.user_models import Arrival, Interaction
from jaxsim.visits import Return
from jaxsim.windows import all_items_but

ENVIRONMENT_ID = "SlateSimulator-v0"
# Folded into the key of the response, which the choice uses as well.
_EXAMINED_STREAM = 0xE8A


@dataclass(frozen=True)
class SlateSimulator(OfSingleItems, RecordedSlates, environment.Environment):
    """The environment with slates. Environments with equal fields are equal and compile once.

    Action: int32[K], distinct items. Reward: float32[], under "calibrated" 1 if an item is chosen and 0 otherwise,
    under "soft" the probability that one is chosen. A slate is invalid if it has an item twice, one outside the
    catalogue, or one that the mask forbids. Outside jit it raises an `InputError`. Inside jit, where there are no
    values, it earns 0, nothing enters the history or counts as shown, but time still advances. `info`:

        slate                int32[K], the action
        scores               float32[K], log-odds of a like of each item alone (0 for an invalid slate)
        probabilities        float32[K + 1], of each place, then of none (of none 1 for an invalid slate)
        place                int32[], the place that is chosen, from 0; -1 for none
        response             `jaxsim.Response`, a like if an item is chosen
        departure_probability  float32[], of leaving after this step; only under departure="fitted"
        session, day, left, returned, gap_days, return_probability  only under visits=True, see docs/visits.md
        invalid_action       bool[]
        terminated, truncated  bool[], also returned
        final_observation    `SlateObservation` after the step, before an automatic reset

    Attributes:
        single: the environment of single items. Its `session_capacity` is the most interactions that enter.
        slate_size: K.
        session_capacity: S, the most steps of a session.
        position_effect: slope of a place's utility in the logarithm of its rank, b.
        outside_option: utility of choosing none, o.
        unchosen: what enters the history if none is chosen, "examined" or "top".
        defaults: params to use when none are passed.
    """

    single: UserSimulator
    slate_size: int
    session_capacity: int
    position_effect: float = slate_choice.POSITION_EFFECT
    outside_option: float = slate_choice.OUTSIDE_OPTION
    unchosen: Unchosen = "examined"
    defaults: HeldParams | None = None

    @classmethod
    def around(cls, single: UserSimulator, slate_size: int, **options: Any) -> "SlateSimulator":
        """The environment that `jaxsim.make` builds with these `SlateOptions`, without its params.

        Args:
            single: of `jaxsim.make` with the same settings, but without slates.
            slate_size: K.
            options: other fields.
        """
        env = cls(single, slate_size, single.session_capacity, **options)
        choice = env.unchosen, env.slate_size, env.position_effect, env.outside_option
        capacity = slate_choice.entry_capacity(env.session_capacity, *choice)
        return replace(env, single=replace(single, session_capacity=capacity))

    def __repr__(self) -> str:
        """The settings in one line."""
        return (
            f"SlateSimulator(slate_size={self.slate_size}, session_capacity={self.session_capacity}, "
            f"position_effect={self.position_effect}, outside_option={self.outside_option}, "
            f"unchosen={self.unchosen!r}, single={self.single!r})"
        )

    @property
    def name(self) -> str:
        """Name and version of the environment's behaviour."""
        return ENVIRONMENT_ID

    @property
    def default_params(self) -> EnvParams:
        """The params of an environment from `gymnax.make`.

        Raises:
            InputError: the environment comes from `jaxsim.make`, which returns its params separately.
        """
        if self.defaults is None:
            return self.single.default_params
        return self.defaults.params

    def action_space(self, params: EnvParams | None = None) -> spaces.Box:
        """K items; gymnax has no space of several choices, so it is a box. `action_mask` says what is allowed."""
        return spaces.Box(0, self.num_items - 1, (self.slate_size,), jnp.int32)

    def observation_space(self, params: EnvParams | None = None) -> ObservationSpace:
        """The space of `SlateObservation`."""
        size = self.session_capacity, self.slate_size
        shown = spaces.Box(-1, self.num_items - 1, size, jnp.int32)
        return SlateObservationSpace(
            {**self.single.observation_space(params).spaces, "shown": shown}
        )

    # ---- the MDP -------------------------------------------------------------------------------------------

    def reset(
        self, key: jax.Array, params: EnvParams | None = None
    ) -> tuple[SlateObservation, SlateState]:
        """Start a session of a user drawn uniformly from `params.session_users`."""
        _, state = self.single.reset(key, self.default_params if params is None else params)
        return self._begin(state)

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[SlateObservation, SlateState]:
        """`reset` without jit."""
        return self._begin(self.single.reset_env(key, params)[1])

    def reset_user(
        self, user: jax.Array, params: EnvParams, key: jax.Array | None = None
    ) -> tuple[SlateObservation, SlateState]:
        """Start a session of a given user, int32[]; see `UserSimulator.reset_user`."""
        return self._begin(self.single.reset_user(user, params, key)[1])

    def _begin(self, single: EnvState) -> tuple[SlateObservation, SlateState]:
        state = SlateState(single, self._nothing_shown())
        return self.get_obs(state), state

    def _nothing_shown(self) -> jax.Array:
        return jnp.full((self.session_capacity, self.slate_size), -1, jnp.int32)

    def step(
        self,
        key: jax.Array,
        state: SlateState,
        action: jax.Array,
        params: EnvParams | None = None,
    ) -> tuple[SlateObservation, SlateState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset, returning gymnax's six values, as `UserSimulator.step`.

        Args:
            key: one PRNG key.
            state: of `reset` or of the previous step.
            action: int32[K], a slate; its first item is at the first place.
            params: of `jaxsim.make`.

        Raises:
            InputError: wrong types or shapes, the states of several sessions, or (outside jit) an invalid slate.
        """
        check_key(key)
        slate = self._slate("action", action)
        self._check_slate(state, slate)
        bare = self if self.defaults is None else replace(self, defaults=None)
        return bare._step(
            key, state, to_int32(slate), self.default_params if params is None else params
        )

    @functools.partial(jax.jit, static_argnames=("self",))
    def _step(
        self, key: jax.Array, state: SlateState, slate: jax.Array, params: EnvParams
    ) -> tuple[SlateObservation, SlateState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        key_step, key_reset = jax.random.split(key)
        final_obs, stepped, reward, terminated, info = self.step_env(key_step, state, slate, params)
        truncated = self.is_truncated(stepped, params)
        arrival = self.single._arrival(_draw_user(key_reset, params), key_reset)
        state = reset_where(terminated | truncated, stepped, arrival, params, self._start)
        ends = {"terminated": terminated, "truncated": truncated, "final_observation": final_obs}
        return self.get_obs(state), state, reward, terminated, truncated, {**info, **ends}

    def _start(self, arrival: Arrival, params: EnvParams) -> SlateState:
        return SlateState(self.single._start(arrival, params), self._nothing_shown())

    def step_env(
        self, key: jax.Array, state: SlateState, action: jax.Array, params: EnvParams
    ) -> tuple[SlateObservation, SlateState, jax.Array, jax.Array, dict[str, Any]]:
        """One step without reset: observation, state, reward, terminated, info."""
        key_response, key_departure = jax.random.split(key)
        slate = to_int32(self._slate("action", action))
        valid = ~self._is_invalid(state, slate)
        view = self._look(state, slate, params)
        scores = slate_choice.log_odds(view.probabilities)
        choice = self._choose(key_response, scores, slate, valid=valid)
        single = self._enter((key, key_response), state.single, choice, view, valid, params)
        row = jnp.where(valid, state.time, self.session_capacity)  # out of range, and so dropped
        shown = state.shown.at[row].set(slate, mode="drop")
        single = single.replace(time=state.time + 1)
        info = {
            "slate": slate,
            "scores": choice.scores,
            "probabilities": choice.probabilities,
            "place": choice.place,
            "response": choice.response,
            "invalid_action": ~valid,
        }
        single, terminated, end = leave(key_departure, single, params, self.single.horizon_days)
        next_state = SlateState(single, shown)
        return self.get_obs(next_state), next_state, choice.reward, terminated, {**info, **end}

    def _choose(
        self, key: jax.Array, scores: jax.Array, slate: jax.Array, valid: jax.Array
    ) -> Choice:
        """What the user does with a slate int32[K] of scores float32[K]; nothing with an invalid one."""
        utility = slate_choice.utilities(scores, self.position_effect)
        utility = jnp.where(valid, utility, -jnp.inf)
        probabilities = slate_choice.choice_probabilities(utility, self.outside_option)
        if self.semantics == "calibrated":
            place = slate_choice.draw_place(key, probabilities)
            reward = (place >= 0).astype(jnp.float32)
        else:
            place = slate_choice.likeliest_place(utility, self.outside_option)
            reward = jnp.where(valid, 1.0 - probabilities[-1], 0.0)
        response = Response(like=(place >= 0).astype(jnp.int8))
        return Choice(slate, jnp.where(valid, scores, 0.0), probabilities, place, reward, response)

    def _look(self, state: SlateState, slate: jax.Array, params: EnvParams) -> View | PosteriorView:
        items = jnp.clip(slate, 0, self.num_items - 1)
        return look(self.single.user_model, params, state.single, items)

    def _enter(
        self,
        keys: tuple[jax.Array, jax.Array],
        state: EnvState,
        choice: Choice,
        view: View | PosteriorView,
        valid: jax.Array,
        params: EnvParams,
    ) -> EnvState:
        """The state after what the choice says has entered the history; keys are of the step and the response."""
        chosen, like = choice.place >= 0, choice.response.like
        slate = jnp.clip(choice.slate, 0, self.num_items - 1)
        places, enters = jnp.zeros(1, jnp.int32), jnp.ones(1, bool)
        if self.unchosen == "examined" and self.slate_size > 1:
            places, enters = self._examined(keys[1], state)
        model: Any = self.single.user_model
        step_keys = [keys[0]]
        if len(places) > 1:
            step_keys = [jax.random.fold_in(keys[0], n) for n in range(len(places))]
        places = jnp.where(chosen, choice.place, places)
        entries: Any = view.entering(params, state, places)
        for n, key in enumerate(step_keys):
            entering = valid & jnp.where(chosen, n == 0, enters[n])
            slot = jnp.where(entering, state.length, self.window)  # JAX drops a write past the end
            new = Interaction(slate[places[n]], like, entering, slot, key)
            entries, fields = entries.enter(model, params, state, n, new)
            state = self.single._append(params, state, new, fields)
        return state

    def _examined(self, key: jax.Array, state: EnvState) -> tuple[jax.Array, jax.Array]:
        """The places that a user who chose none examined, int32[E], and which of them enter, bool[E].

        One entry a step always has room. Further ones enter as long as there is more room than that.
        """
        choice = self.slate_size, self.position_effect, self.outside_option
        share = slate_choice.examination(*choice)
        uniform = jnp.float32(0.5)  # "soft" draws nothing
        if self.semantics == "calibrated":
            key = jax.random.fold_in(key, _EXAMINED_STREAM)
            uniform = jax.random.uniform(key, (), jnp.float32)
        examined = slate_choice.draw_examined(uniform, share)
        most = slate_choice.most_entries(self.unchosen, *choice)
        places = jnp.argsort(~examined, stable=True)[:most].astype(jnp.int32)
        room = self.single.session_capacity - state.session_length
        further = room - (self.session_capacity - state.time)
        return places, examined[places] & (jnp.arange(most, dtype=jnp.int32) <= further)

    def _is_invalid(self, state: SlateState, slate: jax.Array) -> jax.Array:
        outside = (slate < 0) | (slate >= self.num_items)
        same = slate[:, None] == slate
        twice = jnp.triu(same, 1).any()
        invalid = outside.any() | twice | (state.time >= self.session_capacity)
        if self.repeats == "allow":
            return invalid
        seen = (state.single.items[:, None] == slate).any() | (
            state.shown[..., None] == slate
        ).any()
        return invalid | seen

    def _slate(self, name: str, value: Any) -> Any:
        """`value` as K integers.

        Raises:
            InputError: another type or shape.
        """
        slate = integers(name, value, rank=1)
        if len(slate) != self.slate_size:
            raise InputError(
                f"{name} has {len(slate)} items: pass a slate of {self.slate_size} distinct items"
            )
        return slate

    def _check_slate(self, state: SlateState, slate: Any) -> None:
        """Refuse the states of several sessions, and outside jit an invalid slate."""
        if jnp.ndim(state.time) != 0:
            raise InputError(
                "state is of several sessions: use jax.vmap(env.step, (0, 0, 0, None))"
            )
        if not is_concrete(slate):
            return
        self._check_items("action", slate)
        if self.repeats == "allow" or not is_concrete(state):
            return
        seen = np.concatenate([np.asarray(state.single.items), np.asarray(state.shown).ravel()])
        masked = np.asarray(slate)[np.isin(slate, seen)]
        if masked.size:
            raise InputError(
                f"action has {masked[0]}, which was shown or is in the history: choose items that "
                'env.action_mask allows, or make the environment with repeats="allow"'
            )

    def _check_items(self, name: str, slate: Any) -> None:
        check_range(name, slate, 0, self.num_items, "the catalogue's items")
        items, counts = np.unique(np.asarray(slate), return_counts=True)
        if (counts > 1).any():
            raise InputError(
                f"{name} has {items[counts > 1][0]} more than once: pass distinct items"
            )

    def get_obs(
        self, state: SlateState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> SlateObservation:
        """The observation of a state."""
        obs = self.single.get_obs(state.single)
        return SlateObservation(obs.user, obs.items, obs.responses, obs.length, state.shown)

    def is_truncated(self, state: SlateState, params: EnvParams) -> jax.Array:
        """Whether the session has reached its longest length."""
        return state.time >= jnp.minimum(params.max_steps_in_episode, self.session_capacity)

    # ---- queries -------------------------------------------------------------------------------------------

    def action_mask(self, obs: SlateObservation, params: EnvParams | None = None) -> jax.Array:
        """Which items the next slate may have, bool[N]; no item twice."""
        return all_items_but(self.masked_items(obs), self.num_items)

    def masked_items(self, obs: SlateObservation) -> jax.Array:
        """The items that `action_mask` excludes, int32[M]; -1 pads, and items may be there twice."""
        masked = self.single.masked_items(obs)
        return masked if self.repeats == "allow" else jnp.append(masked, obs.shown.ravel())

    def scores(self, state: SlateState, params: EnvParams) -> jax.Array:
        """Log-odds that the user likes each item alone, float32[N]; the mask is not applied."""
        return slate_choice.log_odds(self.single.expected_response(state.single, params))

    def scores_of(self, state: SlateState, slate: jax.Array, params: EnvParams) -> jax.Array:
        """`scores` of a slate's items int32[K], float32[K]."""
        return slate_choice.log_odds(self._look(state, slate, params).probabilities)

    def expected_response(
        self, state: SlateState, slate: jax.Array, params: EnvParams
    ) -> jax.Array:
        """Expected reward of a slate int32[K], the probability that an item of it is chosen; float32[]."""
        scores = self.scores_of(state, slate, params)
        utility = slate_choice.utilities(scores, self.position_effect)
        return 1.0 - slate_choice.choice_probabilities(utility, self.outside_option)[-1]

    def return_of(self, state: SlateState, params: EnvParams) -> Return:
        """The chance that the user returns if the session ends in `state`; see `UserSimulator.return_of`."""
        return self.single.return_of(state.single, params)

    def best_slate(self, scores: jax.Array, obs: SlateObservation) -> jax.Array:
        """The allowed items with the highest scores float32[N], at the places where they count most; int32[K].

        With `scores` of the state it is the slate with the highest expected reward (`jaxsim.slate_choice`).
        """
        mask = self.action_mask(obs)
        return slate_choice.best_slate(scores, mask, self.slate_size, self.position_effect)

    def respond(
        self,
        key: jax.Array,
        history_items: jax.Array,
        history_labels: jax.Array,
        slate: jax.Array,
        params: EnvParams,
        user: jax.Array | int = -1,
    ) -> Choice:
        """What a user does with a slate int32[K], given any history; arguments as in `UserSimulator.respond`.

        Inside jit, an invalid slate (an item twice or outside the catalogue) is not chosen from.

        Raises:
            InputError: wrong types or shapes; outside jit also wrong values.
        """
        items = self._slate("slate", slate)
        if is_concrete(items):
            self._check_items("slate", items)
        items = to_int32(items)

        def probability(item: jax.Array) -> jax.Array:
            return self.single.respond(
                key, history_items, history_labels, item, params, user
            ).probability

        scores = slate_choice.log_odds(jax.vmap(probability)(items))
        twice = jnp.triu(items[:, None] == items, 1).any()
        valid = ~twice & ((items >= 0) & (items < self.num_items)).all()
        return self._choose(key, scores, items, valid=valid)

    def describe(self, dataset: Dataset, info: dict[str, Any]) -> str:
        """What the user chose and why, in one sentence.

        Args:
            dataset: that the environment was made of.
            info: of one step of one session.

        Raises:
            InputError: the info of several sessions.
        """
        return describe_choice(dataset, info, self.position_effect)
