"""The users of the taste model: what a session keeps for them, and how they decide.

`Taste` knows of a taste what the history says, answers of the session included. `DrawnTaste` draws it when the
session begins.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsim import latent_taste, taste, taste_session
from jaxsim.departure import Recent, recent_of
from jaxsim.ensemble import Decision, Evidence
from jaxsim.satiation import Satiation, added, redundancies, redundancy_of
from jaxsim.signals import Context, answer, values_of
from jaxsim.taste import Posterior, TasteModel
from jaxsim.taste_session import Projection
from jaxsim.types import EnvParams, EnvState
from jaxsim.user_models import (
    Arrival,
    Fields,
    Interaction,
    Outlook,
    Question,
    interactions_first,
    outcome,
)

# Folded into a key that other draws use as well. Far from the small numbers with which `jax.random.split` counts.
_TASTE_STREAM, _MOOD_STREAM = 0x7A57E, 0x300D


class Before(NamedTuple):
    """What comes before a candidate, as far as it shifts the log-odds of a like.

    Attributes:
        total, exposed: sum and number of `ExposureModel.shift`; the sum is None without `exposure=True`.
        recent: the last five interactions; None without satiation.
    """

    total: jax.Array | None
    exposed: jax.Array
    recent: Recent | None


@dataclass(frozen=True)
class Taste:
    """The user of the taste model (`jaxsim.taste`), who likes an item with probability p.

    Attributes:
        window: W.
        history_length: H.
        semantics: "calibrated" draws the like with probability p, and it earns 1; "soft" likes where p is at least
            1/2, and every response earns p.
        satiation: of `jaxsim.make`.
    """

    window: int
    history_length: int
    semantics: str
    satiation: Satiation = None

    def start(self, params: EnvParams, arrival: Arrival) -> Fields:
        """The posterior after a user's initial history, with no rows for the session."""
        fields = self._start(params, arrival.user, whole=False)
        return {**fields, **_initial_exposure(params, arrival.user)}

    def pad(self, params: EnvParams, state: EnvState) -> EnvState:
        """The state of a new session with room for W positions."""
        return state.replace(**self._start(params, state.user, whole=True))

    def _start(self, params: EnvParams, user: jax.Array, whole: bool) -> Fields:
        capacity = self.window - self.history_length
        session = taste_session.begin(_initial_posterior(params, user), capacity, whole)
        return {"hidden": None, "key_values": None, "posterior": session}

    def decide(
        self, key: jax.Array, params: EnvParams, state: EnvState, candidate: jax.Array
    ) -> Decision:
        """The decision on a candidate int32[]."""
        projection = _project(params, state, candidate)
        tastes = projection.taste, projection.signal_tastes
        return self.decide_by(key, params, state, candidate, *tastes)

    def decide_by(
        self,
        key: jax.Array,
        params: EnvParams,
        state: EnvState,
        candidate: jax.Array,
        expected: jax.Array,
        signal_tastes: jax.Array | None = None,
    ) -> Decision:
        """`decide` of a candidate for which the expected taste float32[] is known."""
        shift = self._shift(params, self._before(state), candidate)
        return self._by_posterior(key, _model(params), candidate, expected, signal_tastes, shift)

    def append(self, params: EnvParams, state: EnvState, new: Interaction) -> Fields:
        """The posterior, and the sum of the exposure model's features, with one more interaction."""
        # XLA projects the item once for this and for `decide`.
        return self.append_projected(params, state, new, _project(params, state, new.item))

    def append_projected(
        self, params: EnvParams, state: EnvState, new: Interaction, projection: Projection
    ) -> Fields:
        """`append` of an item whose projection is known."""
        signals, values = _model(params).signals, None
        if signals is not None:
            assert new.response is not None
            values = values_of(signals, new.response)
        posterior = taste_session.update(
            _model(params), state.posterior, _place(state), projection, new.like, new.valid, values
        )
        fields: dict[str, Any] = {"posterior": posterior}
        if params.exposure is not None:
            added = jnp.where(new.valid, params.exposure.features[new.item], 0.0)
            fields["exposure"] = state.exposure + added
        return fields

    def begin_evidence(self, params: EnvParams, items: jax.Array, likes: jax.Array) -> None:
        """None: the state has all that `expected` needs."""

    def expected(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> jax.Array:
        """Probability that each item is liked, float32[N]."""
        model = _model(params)
        tastes = taste_session.tastes(model, state.posterior, _place(state))
        log_odds = model.log_odds(model.item_mean, tastes)
        shifts = self._shifts(params, self._before(state))
        if shifts is not None:
            log_odds += shifts
        return jax.nn.sigmoid(log_odds)

    def outlook(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> Outlook:
        """What the user would answer about every item."""
        model, window = _model(params), _place(state)
        tastes = taste_session.tastes(model, state.posterior, window)
        log_odds, context = model.log_odds(model.item_mean, tastes), None
        of_items = self._shifts(params, self._before(state))
        shifts: jax.Array | float = 0.0 if of_items is None else of_items
        if model.signals is not None:
            of_signals = taste_session.signal_tastes(model, state.posterior, window)
            context = Context(_all_items(model), log_odds, of_signals, shifts)
        log_odds += shifts
        return Outlook(jax.nn.sigmoid(log_odds), log_odds >= 0, model.signals, context)

    def respond(
        self, key: jax.Array, params: EnvParams, question: Question, reasons: bool
    ) -> Decision:
        """The decision on a candidate after any history; see `UserSimulator.respond`."""
        model = _model(params)
        order, length = interactions_first(question.items)
        items, likes = question.items[order], question.likes[order]
        values = None if question.values is None else question.values[order]
        posterior = taste.condition(model, items, likes, length, values)
        kernel = taste.history_kernel(model, question.candidate, items, length)
        expected, of_signals = taste.product(kernel, posterior.weights), posterior.signal_scores
        if of_signals is not None:
            solved = taste.product(posterior.inverse_factor, kernel)
            of_signals = jnp.sum(solved[:, None] * of_signals, axis=0)
        total = None if params.exposure is None else params.exposure.total(items, length)
        before = Before(total, length, self._recent(items, likes, length))
        shift = self._shift(params, before, question.candidate)
        return self._by_posterior(key, model, question.candidate, expected, of_signals, shift)

    def info(self, decision: Decision) -> dict[str, jax.Array]:
        """What a step's info says about the decision."""
        return {"probability": decision.probability}

    def _before(self, state: EnvState) -> Before:
        recent = self._recent(state.items, state.responses, state.length)
        return Before(state.exposure, self._exposed(state), recent)

    def _exposed(self, state: EnvState) -> jax.Array:
        """How many interactions count for the exposure, int32[]."""
        return state.length

    def _recent(self, items: jax.Array, likes: jax.Array, length: jax.Array) -> Recent | None:
        """The last five of a history; None without satiation."""
        if self.satiation is None:
            return None
        if items.shape[0] == 0:  # nothing can be taken from an empty array
            items, likes = jnp.full(1, -1, jnp.int32), jnp.zeros(1, jnp.int8)
        return recent_of(items, likes, length)

    def _shift(self, params: EnvParams, before: Before, candidate: jax.Array) -> jax.Array | None:
        """What exposure and satiation add to the log-odds of a like, float32[]; None without both."""
        shift = None
        if params.exposure is not None and before.total is not None:
            shift = params.exposure.shift(before.total, before.exposed, candidate)
        if before.recent is None:
            return shift
        redundancy = redundancy_of(params.catalogue, before.recent, candidate)
        tired = added(self.satiation, params.satiation, redundancy)
        return tired if shift is None else shift + tired

    def _shifts(self, params: EnvParams, before: Before) -> jax.Array | None:
        """`_shift` of every item, float32[N]."""
        shifts = None
        if params.exposure is not None and before.total is not None:
            shifts = params.exposure.shifts(before.total, before.exposed)
        if before.recent is None:
            return shifts
        redundancy = redundancies(params.catalogue, before.recent)
        tired = added(self.satiation, params.satiation, redundancy)
        return tired if shifts is None else shifts + tired

    def _by_posterior(
        self,
        key: jax.Array,
        model: TasteModel,
        candidate: jax.Array,
        expected: jax.Array,
        signal_tastes: jax.Array | None,
        shift: jax.Array | None,
    ) -> Decision:
        before = log_odds = model.log_odds(model.item_mean[candidate], expected)
        if shift is not None:
            log_odds = before + shift
        probability = jax.nn.sigmoid(log_odds)
        decision = outcome(key, self.semantics, probability, log_odds >= 0, expected)
        if signal_tastes is None:
            return decision
        assert model.signals is not None
        context = Context(candidate, before, signal_tastes, 0.0 if shift is None else shift)
        return answer(key, model.signals, self.semantics, context, decision)


class DrawnTaste(Taste):
    """The same user with a taste that is drawn when the session begins, and stays (`jaxsim.latent_taste`).

    `respond`, which has no session, states the posterior's probability. Which items the user would have chosen by
    themselves depends on the initial history alone, as the taste does.
    """

    def start(self, params: EnvParams, arrival: Arrival) -> Fields:
        """The taste of a user, drawn given their initial history."""
        histories, user, key = params.histories, arrival.user, arrival.key
        assert key is not None
        history = histories.items[user], histories.length[user]
        posterior = _initial_posterior(params, user)
        key = jax.random.fold_in(key, _TASTE_STREAM)
        drawn = latent_taste.draw(key, _model(params), posterior, *history)
        fields = {"hidden": None, "key_values": None, "latent": drawn}
        return {**fields, **_initial_exposure(params, user)}

    def pad(self, params: EnvParams, state: EnvState) -> EnvState:
        """The state as it is: it keeps nothing of the session."""
        return state

    def decide(
        self, key: jax.Array, params: EnvParams, state: EnvState, candidate: jax.Array
    ) -> Decision:
        """The decision on a candidate int32[]."""
        model = _model(params)
        drawn = latent_taste.taste_for(model, state.latent, self._place(state), candidate)
        shift = self._shift(params, self._before(state), candidate)
        quantile = latent_taste.quantile(model, model.item_mean[candidate], drawn, shift)
        probability = latent_taste.probability(quantile)
        expected = latent_taste.taste_of(model, drawn)
        decision = outcome(key, self.semantics, probability, quantile >= 0, expected)
        if model.signals is None:
            return decision
        context = _drawn_context(model, candidate, drawn, quantile)
        return answer(key, model.signals, self.semantics, context, decision)

    def append(self, params: EnvParams, state: EnvState, new: Interaction) -> Fields:
        """The mood at the next interaction. The answer does not count."""
        key = jax.random.fold_in(new.key, _MOOD_STREAM)
        mood = latent_taste.next_mood(key, _model(params), state.latent.mood)
        mood = jnp.where(new.valid, mood, state.latent.mood)
        return {"latent": replace(state.latent, mood=mood)}

    def expected(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> jax.Array:
        """Probability that each item is liked by a user of this taste, float32[N]."""
        model = _model(params)
        drawn = latent_taste.tastes(model, state.latent, self._place(state))
        shifts = self._shifts(params, self._before(state))
        quantile = latent_taste.quantile(model, model.item_mean, drawn, shifts)
        return latent_taste.probability(quantile)

    def outlook(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> Outlook:
        """What a user of this taste would answer about every item."""
        model = _model(params)
        drawn = latent_taste.tastes(model, state.latent, self._place(state))
        shifts = self._shifts(params, self._before(state))
        quantile, context = latent_taste.quantile(model, model.item_mean, drawn, shifts), None
        if model.signals is not None:
            context = _drawn_context(model, _all_items(model), drawn, quantile)
        probability = latent_taste.probability(quantile)
        return Outlook(probability, quantile >= 0, model.signals, context)

    def _exposed(self, state: EnvState) -> jax.Array:
        return state.history_length

    def _place(self, state: EnvState) -> latent_taste.Place:
        items = state.items[: self.history_length]
        return latent_taste.Place(items, state.history_length, state.length)


def _all_items(model: TasteModel) -> jax.Array:
    return jnp.arange(model.item_mean.shape[0], dtype=jnp.int32)


def _drawn_context(
    model: TasteModel, item: jax.Array, drawn: latent_taste.Drawn, quantile: jax.Array
) -> Context:
    """What the signals of a drawn taste depend on, for items int32[...]."""
    assert drawn.signal_tastes is not None
    log_odds = model.log_odds(model.item_mean[item], drawn.mean)
    shift = latent_taste.log_odds(quantile) - log_odds
    return Context(item, log_odds, drawn.signal_tastes, shift)


def _initial_posterior(params: EnvParams, user: jax.Array) -> Posterior:
    """The posterior after the initial history of a user int32[]."""
    histories = params.histories
    if histories.posterior is None:
        history = histories.items[user], histories.likes[user], histories.length[user]
        values = None if histories.values is None else histories.values[user]
        return taste.condition(_model(params), *history, values)
    return jax.tree.map(lambda x: x[user], histories.posterior)


def _initial_exposure(params: EnvParams, user: jax.Array) -> Fields:
    """The sum of the exposure model's features over the initial history of a user int32[]; nothing without it."""
    if params.exposure is None:
        return {}
    histories = params.histories
    return {"exposure": params.exposure.total(histories.items[user], histories.length[user])}


def _place(state: EnvState) -> taste_session.Place:
    return taste_session.place(state.posterior, state.items, state.history_length, state.length)


def _project(params: EnvParams, state: EnvState, candidate: jax.Array) -> Projection:
    return taste_session.project(_model(params), state.posterior, _place(state), candidate)


def _model(params: EnvParams) -> TasteModel:
    assert params.taste is not None  # `make` puts it there for these semantics
    return params.taste
