"""The data of a session: params, state and observation, and the space of observations."""

from typing import Any

import jax
from flax import struct
from gymnax.environments import environment, spaces

from jaxsim.catalogue import Catalogue
from jaxsim.departure import DepartureModel
from jaxsim.exposure import ExposureModel
from jaxsim.latent_taste import LatentTaste
from jaxsim.sasrec import KeyValues
from jaxsim.satiation import SatiationWeights
from jaxsim.taste import Posterior, TasteModel
from jaxsim.taste_session import SessionPosterior
from jaxsim.visits import Visit, VisitModel


@struct.dataclass
class Prefix:
    """f_sta's encoding of an initial history of H positions.

    Attributes:
        hidden: float32[width], f_sta's output after the latest interaction; zero if there is none.
        key_values: keys and values of the H positions, float32[H, width] for each block, and sums of residuals.
    """

    hidden: jax.Array
    key_values: KeyValues


@struct.dataclass
class Histories:
    """The initial history of each of U users, H = history_length.

    Attributes:
        items: int32[U, H], left-aligned, -1 pads.
        likes: int8[U, H], 1 like, 0 dislike or padding.
        length: int32[U].
        prefix: f_sta's encoding of each history, `Prefix` [U, ...]; None if each reset encodes it, or if the
            semantics does not ask f_sta.
        posterior: the same for the taste model, `Posterior` [U, ...].
        values: float32[U, H, C], ratings and durations (`jaxsim.signals`), NaN where one is not known or for
            padding; None if responses are likes alone.
    """

    items: jax.Array
    likes: jax.Array
    length: jax.Array
    prefix: Prefix | None = None
    posterior: Posterior | None = None
    values: jax.Array | None = None


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Everything that a jitted program reads. Pass it as an argument; never close over it.

    Attributes:
        max_steps_in_episode: int32[], the step at which a session is truncated; at most `session_capacity` counts.
        departure_probability: float32[], probability that the user leaves after a step, where it is constant.
        session_users: int32[S], the users who may start a session.
        catalogue: pair tables or item features.
        histories: the users' initial histories.
        sasrec: variables of the statistic model; empty if the semantics does not ask it.
        taste: the taste model; None if the semantics does not ask it.
        user_params: what the methods of `user_model` get first (`jaxsim.UserModel`); None without one.
        exposure: the exposure model, under `exposure=True`; otherwise None.
        departure: when users leave, under `departure="fitted"`; None if the probability is constant.
        visits: whether and when users return, under `visits=True`; otherwise None.
        satiation: what users tire of, under `satiation="fitted"` or a number; None without, and for a function.
    """

    max_steps_in_episode: int | jax.Array = struct.field(kw_only=True)
    departure_probability: jax.Array = struct.field(kw_only=True)
    session_users: jax.Array = struct.field(kw_only=True)
    catalogue: Catalogue = struct.field(kw_only=True)
    histories: Histories = struct.field(kw_only=True)
    sasrec: dict[str, Any] = struct.field(kw_only=True)
    taste: TasteModel | None = struct.field(kw_only=True, default=None)
    user_params: Any = struct.field(kw_only=True, default=None)
    exposure: ExposureModel | None = struct.field(kw_only=True, default=None)
    departure: DepartureModel | None = struct.field(kw_only=True, default=None)
    visits: VisitModel | None = struct.field(kw_only=True, default=None)
    satiation: SatiationWeights | None = struct.field(kw_only=True, default=None)


@struct.dataclass
class EnvState(environment.EnvState):
    """One session: the window of W = history_length + session_capacity positions, and f_sta's encoding of it.

    Attributes:
        time: int32[], steps taken.
        user: int32[].
        items: int32[W], initial history, then the session; -1 pads.
        responses: int8[W]; 1 like, -1 dislike, 0 padding.
        length: int32[], number of positions in use.
        history_length: int32[], how many of these are initial history.
        hidden: float32[width], f_sta's output after the latest interaction.
        key_values: f_sta's cache of W positions; entries beyond `length` are meaningless.
        posterior: of the taste model. It is None, as `hidden` and `key_values` are, if the semantics does not ask
            the model.
        latent: the taste that was drawn when the session began, under `taste="latent"`; `posterior` is None then.
        user_state: the state of `user_model`; None without one.
        exposure: float32[F], the sum of `ExposureModel.features` over the history, under `exposure=True`.
        visits: the session in the user's life, under `visits=True`; otherwise None.
    """

    time: jax.Array
    user: jax.Array
    items: jax.Array
    responses: jax.Array
    length: jax.Array
    history_length: jax.Array
    hidden: jax.Array
    key_values: KeyValues
    posterior: SessionPosterior = None  # type: ignore[assignment]
    latent: LatentTaste = None  # type: ignore[assignment]
    user_state: Any = None
    exposure: jax.Array = None  # type: ignore[assignment]
    visits: Visit | None = None

    @property
    def position(self) -> jax.Array:
        """Steps of the session so far, int32[]: `time`, or with visits those since the session began."""
        return self.time if self.visits is None else self.time - self.visits.began

    @property
    def session_length(self) -> jax.Array:
        """Number of interactions that the episode has appended, int32[]."""
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
    """Space of `Observation`: it samples and contains values of that type."""

    def sample(self, key: jax.Array) -> Observation:
        """An Observation with independent random fields."""
        return Observation(**super().sample(key))


class HeldParams:
    """Default params of an environment. Equal only to itself, so that jit never mixes datasets up."""

    def __init__(self, params: EnvParams) -> None:
        self.params = params
