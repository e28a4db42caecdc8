"""What the environment asks of a model of users, and the users who decide by the three votes.

`jaxsim.taste_users` has those of the taste model, `jaxsim.own_users` a model of your own. All say what a session
keeps of its history (`start`, `append`), what the user responds (`decide`, `respond`), and what each item would
earn (`expected`). The environment does the rest: users, windows, masks, departures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsim import ensemble
from jaxsim.ensemble import Decision, Evidence, Response
from jaxsim.sasrec import CacheDtype, SASRec
from jaxsim.signals import Context, Signals
from jaxsim.types import EnvParams, EnvState, Prefix

TASTE_SEMANTICS = ("calibrated", "soft")
# The fields of a decision that are 0 for a candidate that does not exist.
OUTCOMES = ("votes", "reward", "response", "probability")
LIKELY = 0.5  # who likes something with this probability at least leans to it
Fields = Mapping[str, Any]  # fields of `EnvState`


class Interaction(NamedTuple):
    """One recommendation and the response to it.

    Attributes:
        item: int32[].
        like: int8[], 1 like, 0 dislike.
        valid: bool[], False if nothing is appended.
        slot: int32[], where it is written; the length of the window if nothing is appended.
        key: PRNG key of the step.
        response: the whole response, for user models whose signals count; None if only the like does.
    """

    item: jax.Array
    like: jax.Array
    valid: jax.Array
    slot: jax.Array
    key: jax.Array
    response: Response | None = None


class Arrival(NamedTuple):
    """Who begins a session.

    Attributes:
        user: int32[].
        key: PRNG key of what is drawn for the session; None if the user model draws nothing.
    """

    user: jax.Array
    key: jax.Array | None


class Question(NamedTuple):
    """The arguments of `UserSimulator.respond`, checked.

    Attributes:
        items: int32[H], -1 pads anywhere; all -1 if the candidate does not exist.
        likes: int8[H], 1 like, 0 dislike.
        candidate: int32[].
        exists: bool[], whether the candidate is in the catalogue.
        user: int32[], -1 if unknown.
        values: float32[H, C], ratings and durations of the history (`jaxsim.signals`); None if none is known.
    """

    items: jax.Array
    likes: jax.Array
    candidate: jax.Array
    exists: jax.Array
    user: jax.Array
    values: jax.Array | None = None


class Outlook(NamedTuple):
    """What a user would answer about each of N items.

    Attributes:
        probability: float32[N], of a like.
        leans: bool[N], whether it is at least 1/2.
        signals: what ratings and durations follow from; None if responses are likes alone.
        context: what they depend on; None as above.
    """

    probability: jax.Array
    leans: jax.Array
    signals: Signals | None = None
    context: Context | None = None


@dataclass(frozen=True)
class Votes:
    """The user of the paper, who decides by the three votes.

    Attributes:
        sasrec: architecture of f_sta.
        window: W.
        history_length: H.
        semantics: "paper" or "released".
        cache_dtype: of the keys and values that a session keeps.
    """

    sasrec: SASRec
    window: int
    history_length: int
    semantics: str
    cache_dtype: CacheDtype = "float32"

    def start(self, params: EnvParams, arrival: Arrival) -> Fields:
        """f_sta's encoding of a user's initial history, with H positions."""
        histories, user = params.histories, arrival.user
        if histories.prefix is None:
            history = histories.items[user], histories.likes[user], histories.length[user]
            prefix = encode_history(self.sasrec, params.sasrec, *history)
        else:
            prefix = jax.tree.map(lambda x: x[user], histories.prefix)
        key_values = prefix.key_values.stored_as(self.cache_dtype)
        return {"hidden": prefix.hidden, "key_values": key_values}

    def pad(self, params: EnvParams, state: EnvState) -> EnvState:
        """The state of a new session with room for W positions."""
        padding = ((0, self.window - self.history_length), (0, 0))
        padded = jax.tree.map(lambda x: jnp.pad(x, padding), state.key_values)
        return state.replace(key_values=padded)

    def decide(
        self, key: jax.Array, params: EnvParams, state: EnvState, candidate: jax.Array
    ) -> Decision:
        """The decision on a candidate int32[]."""
        logit = self._sta_logit(params, state.hidden, candidate, state.user)
        return ensemble.decide(
            key,
            params.catalogue,
            candidate,
            state.items,
            state.responses,
            logit,
            self.semantics,
        )

    def append(self, params: EnvParams, state: EnvState, new: Interaction) -> Fields:
        """f_sta's encoding with one more interaction."""
        hidden, key_values = self.sasrec.apply(
            params.sasrec, new.item, new.like, state.key_values, new.slot, method="encode_token"
        )
        return {
            "key_values": key_values,
            "hidden": jnp.where(new.valid, hidden, state.hidden),
        }

    def begin_evidence(self, params: EnvParams, items: jax.Array, likes: jax.Array) -> Evidence:
        """What `expected` needs besides the state; `add_evidence` keeps it up to date."""
        return ensemble.gather_evidence(params.catalogue, items, likes)

    def expected(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> jax.Array:
        """Expected reward of every item, float32[N]."""
        assert evidence is not None
        logits = self.sasrec.apply(params.sasrec, state.hidden, state.user, method="all_logits")
        return ensemble.expected_likes(evidence, logits, self.semantics)

    def outlook(self, params: EnvParams, state: EnvState, evidence: Evidence | None) -> Outlook:
        """What the user would answer about every item."""
        probability = self.expected(params, state, evidence)
        return Outlook(probability, probability >= LIKELY)

    def respond(
        self, key: jax.Array, params: EnvParams, question: Question, reasons: bool
    ) -> Decision:
        """The decision on a candidate after any history; see `UserSimulator.respond`."""
        hidden = self._encode_latest(params, question.items, question.likes)
        logit = self._sta_logit(params, hidden, question.candidate, question.user)
        return ensemble.decide(
            key,
            params.catalogue,
            question.candidate,
            question.items,
            question.likes,
            jnp.where(question.exists, logit, -jnp.inf),
            self.semantics,
            reasons,
        )

    def info(self, decision: Decision) -> dict[str, jax.Array]:
        """What a step's info says about the decision."""
        return {"votes": decision.votes}

    def _encode_latest(self, params: EnvParams, items: jax.Array, likes: jax.Array) -> jax.Array:
        """f_sta's output after the latest W interactions of a history with pads anywhere, float32[width]."""
        if items.shape[0] == 0:
            return jnp.zeros(self.sasrec.width, jnp.float32)
        order, length = interactions_first(items)
        size = min(self.window, items.shape[0])
        latest = order[jnp.maximum(length - size, 0) + jnp.arange(size, dtype=jnp.int32)]
        hidden, _ = self.sasrec.apply(params.sasrec, items[latest], likes[latest], method="encode")
        return jnp.where(length > 0, hidden[jnp.clip(length - 1, 0, size - 1)], 0)

    def _sta_logit(
        self, params: EnvParams, hidden: jax.Array, candidate: jax.Array, user: jax.Array
    ) -> jax.Array:
        return self.sasrec.apply(params.sasrec, hidden, candidate, user, method="logit")


def outcome(
    key: jax.Array,
    semantics: str,
    probability: jax.Array,
    leans: jax.Array,
    taste: jax.Array | None = None,
) -> Decision:
    """The decision of a user who likes an item with a probability.

    Args:
        key: PRNG key of the like.
        semantics: "calibrated" draws the like with the probability, and it earns 1; under "soft" the user likes if
            they lean to it, and every response earns the probability.
        probability: float32[].
        leans: bool[], whether the probability is at least 1/2, without its rounding.
        taste: float32[], g of the taste model.
    """
    if semantics == "calibrated":
        like = jax.random.bernoulli(key, probability)
        reward = like.astype(jnp.float32)
    else:
        like, reward = leans, probability
    response = Response(like=like.astype(jnp.int8))
    return Decision(probability=probability, taste=taste, reward=reward, response=response)


def interactions_first(items: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An order that puts padding last, int32[H], and the number of interactions, int32[]."""
    order = jnp.argsort(items < 0, stable=True)
    return order, jnp.sum(items >= 0, dtype=jnp.int32)


def encode_history(
    sasrec: SASRec, variables: dict[str, Any], items: jax.Array, likes: jax.Array, length: jax.Array
) -> Prefix:
    """f_sta's encoding of a left-aligned history: items int32[H], likes int8[H], number of them int32[]."""
    hidden, key_values = sasrec.apply(variables, items, likes, method="encode")
    latest = hidden[jnp.maximum(length - 1, 0)]
    return Prefix(hidden=jnp.where(length > 0, latest, 0), key_values=key_values)
