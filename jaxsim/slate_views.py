"""What the user of a session thinks of the K items of a slate, and what their answer changes.

`look` asks about every item of a slate. A `View` has their probabilities, and says how items enter the history
(`entering`). Users of the taste model with `taste="posterior"` have a view of their own. One pass over the
factor of the posterior (`jaxsim.taste_session`) gives the weights of the history, and with them the taste for all
items of the slate. A second pass serves all interactions that enter.
"""

from typing import Any, NamedTuple, Self

import chex
import jax
import jax.numpy as jnp

from jaxsim import taste_session
from jaxsim.taste import mood_decays, product
from jaxsim.taste_session import Place, Projection
from jaxsim.taste_users import Taste
from jaxsim.types import EnvParams, EnvState
from jaxsim.user_models import Fields, Interaction


class Entries(NamedTuple):
    """Items that may enter the history of any model of users, one after the other."""

    def enter(
        self, model: Any, params: EnvParams, state: EnvState, index: int, new: Interaction
    ) -> tuple[Self, Fields]:
        """The entries, and the fields of the state, after an interaction with the entry `index`."""
        return self, model.append(params, state, new)


class View(NamedTuple):
    """The view of any model of users: each interaction that enters is looked at again.

    Attributes:
        probabilities: float32[K], of a like of each item alone.
    """

    probabilities: jax.Array

    def entering(self, params: EnvParams, state: EnvState, places: jax.Array) -> Entries:
        """The items at places int32[E] that may enter."""
        return Entries()


class PosteriorEntries(NamedTuple):
    """Items that may enter the history of `Taste`, one after the other.

    With l(c) = L^-1 k(c, h) as in `jaxsim.taste_session`, an interaction with an item e gives every later item one
    more coefficient, and the mood of all former interactions fades by one more step:

        l'(c) = [l(c) + (rho - 1) m, (k(c, e) + w rho - (l(c) + (rho - 1) m)' l(e)) / d]
        m'    = [rho m, rho (w - m' l(e)) / d]

    rho is the mood's decay, w its weight, and m is L^-1 times the kernel of the mood, which is that of every item.

    Attributes:
        items: int32[E].
        coefficients: float32[E, H + S], l of each item.
        mood: float32[H + S], m; None for one item.
    """

    items: jax.Array
    coefficients: jax.Array
    mood: jax.Array | None

    def enter(
        self, model: Taste, params: EnvParams, state: EnvState, index: int, new: Interaction
    ) -> tuple["PosteriorEntries", Fields]:
        """The entries, and the fields of the state, after an interaction with the entry `index`."""
        projection = taste_session.with_tastes(
            state.posterior, self.items[index], self.coefficients[index]
        )
        fields = model.append_projected(params, state, new, projection)
        if index + 1 == len(self.items):
            return self, fields
        return self._after(params, state, new, projection), fields

    def _after(
        self, params: EnvParams, state: EnvState, new: Interaction, entered: Projection
    ) -> "PosteriorEntries":
        model = params.taste
        assert model is not None
        assert self.mood is not None
        rho, weight = model.mood_decay, model.mood_weight
        pivot = taste_session.pivot_of(model, entered)
        faded = self.coefficients + (rho - 1.0) * self.mood
        kernel = model.kernel.between(entered.item, self.items) + weight * rho
        of_items = (kernel - jnp.sum(faded * entered.coefficients, axis=1)) / pivot
        of_mood = rho * (weight - jnp.sum(self.mood * entered.coefficients)) / pivot
        row = taste_session.row_of(state.posterior, state.length - state.history_length)
        after = faded.at[:, row].set(of_items), (rho * self.mood).at[row].set(of_mood)
        before = self.coefficients, self.mood
        coefficients, mood = jax.tree.map(lambda x, y: jnp.where(new.valid, x, y), after, before)
        return self._replace(coefficients=coefficients, mood=mood)


class PosteriorView(NamedTuple):
    """The view of `Taste`.

    Attributes:
        probabilities: float32[K], of a like of each item alone.
        items: int32[K].
        window: of the state.
        kernels: float32[K, H + S], of each item with the window.
    """

    probabilities: jax.Array
    items: jax.Array
    window: Place
    kernels: jax.Array

    def entering(self, params: EnvParams, state: EnvState, places: jax.Array) -> PosteriorEntries:
        """The items at places int32[E] that may enter."""
        kernels, window = self.kernels[places], self.window
        if len(places) == 1:
            only = taste_session.solve(state.posterior, window, kernels[0])
            return PosteriorEntries(self.items[places], only[None], None)
        assert params.taste is not None
        decays = mood_decays(params.taste, window.position, window.length)
        of_mood = jnp.where(window.valid, params.taste.mood_weight * decays, 0.0)
        columns = jnp.concatenate([kernels, of_mood[None]]).T
        solved = taste_session.solve(state.posterior, window, columns).T
        return PosteriorEntries(self.items[places], solved[:-1], solved[-1])


def look(model: Any, params: EnvParams, state: EnvState, items: jax.Array) -> View | PosteriorView:
    """What the user thinks of items int32[K] of the catalogue.

    Args:
        model: `UserSimulator.user_model`.
        params: of `jaxsim.make`.
        state: of one session.
        items: of a slate.
    """
    chex.assert_rank(items, 1)
    key = jax.random.key(0)  # the draw of the like is not used
    if type(model) is Taste:
        return _look_once(key, model, params, state, items)

    def probability(item: jax.Array) -> jax.Array:
        return model.decide(key, params, state, item).probability

    return View(jax.vmap(probability)(items))


def _look_once(
    key: jax.Array, model: Taste, params: EnvParams, state: EnvState, items: jax.Array
) -> PosteriorView:
    assert params.taste is not None
    window = taste_session.place(state.posterior, state.items, state.history_length, state.length)
    kernels = jax.vmap(taste_session.kernel_of, (None, None, 0))(params.taste, window, items)
    tastes = product(kernels, taste_session.weights(state.posterior, window))

    def probability(item: jax.Array, taste: jax.Array) -> jax.Array:
        decision = model.decide_by(key, params, state, item, taste)
        assert decision.probability is not None
        return decision.probability

    return PosteriorView(jax.vmap(probability)(items, tastes), items, window, kernels)
