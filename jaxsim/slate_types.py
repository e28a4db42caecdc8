"""Observation, state and choice of a session with slates (`jaxsim.slates`)."""

import jax
from flax import struct
from gymnax.environments import spaces

from jaxsim.ensemble import Response
from jaxsim.types import EnvState, Observation, ObservationSpace


@struct.dataclass
class SlateObservation(Observation):
    """`Observation`, and what the session has shown.

    Attributes:
        shown: int32[S, K], the slate of each step of the session, S = session_capacity; -1 for steps to come and
            for invalid slates.
    """

    shown: jax.Array


@struct.dataclass
class SlateState:
    """One session with slates.

    Attributes:
        single: the state of the environment of single items.
        shown: int32[S, K], as in `SlateObservation`.
    """

    single: EnvState
    shown: jax.Array

    @property
    def time(self) -> jax.Array:
        """Steps taken, int32[]."""
        return self.single.time

    @property
    def user(self) -> jax.Array:
        """The session's user, int32[]."""
        return self.single.user

    @property
    def session_length(self) -> jax.Array:
        """Number of interactions that the session has appended, int32[]."""
        return self.single.session_length


@struct.dataclass
class Choice:
    """What a user does with a slate.

    Attributes:
        slate: int32[K].
        scores: float32[K], log-odds of a like of each item alone; 0 in an invalid slate.
        probabilities: float32[K + 1], of each place, then of none.
        place: int32[], the place that is chosen, from 0; -1 for none.
        reward: float32[].
        response: `jaxsim.Response`; a like if an item is chosen.
    """

    slate: jax.Array
    scores: jax.Array
    probabilities: jax.Array
    place: jax.Array
    reward: jax.Array
    response: Response


class SlateObservationSpace(ObservationSpace):
    """Space of `SlateObservation`."""

    def sample(self, key: jax.Array) -> SlateObservation:
        """A SlateObservation with independent random fields."""
        return SlateObservation(**spaces.Dict.sample(self, key))
