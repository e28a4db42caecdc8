"""What the user of a session thinks of the K items of a slate, and what their answer changes.

`look` asks about every item of a slate. A `View` has their probabilities, and appends the interactions that enter
the history. Users of the taste model with `taste="posterior"` have a view of their own: one pass over the factor
of the posterior (`jaxsim.taste_session`) serves all items of the slate and all interactions that enter.
"""

from typing import Any, NamedTuple, Self

import chex
import jax
import jax.numpy as jnp

from jaxsim import taste_session
from jaxsim.taste import mood_decays
from jaxsim.taste_session import Projection
from jaxsim.taste_users import Taste
from jaxsim.types import EnvParams, EnvState
from jaxsim.user_models import Fields, Interaction


class View(NamedTuple):
    """The view of any model of users: each interaction that enters is looked at again.

    Attributes:
        probabilities: float32[K], of a like of each item alone.
    """

    probabilities: jax.Array

    def enter(
        self, model: Any, params: EnvParams, state: EnvState, place: jax.Array, new: Interaction
    ) -> tuple[Self, Fields]:
        """The view, and the fields of the state, after an interaction with the item at a place int32[]."""
        return self, model.append(params, state, new)


class PosteriorView(NamedTuple):
    """The view of `Taste`.

    With l(c) = L^-1 k(c, h) as in `jaxsim.taste_session`, an interaction with an item e gives every other item of
    the slate one more coefficient, and the mood of all former interactions fades by one more step:

        l'(c) = [l(c) + (rho - 1) m, (k(c, e) + w rho - (l(c) + (rho - 1) m)' l(e)) / d]
        m'    = [rho m, rho (w - m' l(e)) / d]

    rho is the mood's decay, w its weight, and m is L^-1 times the kernel of the mood, which is that of every item.

    Attributes:
        probabilities: float32[K], of a like of each item alone.
        items: int32[K].
        coefficients: float32[K, H + S], l of each item.
        mood: float32[H + S], m.
    """

    probabilities: jax.Array
    items: jax.Array
    coefficients: jax.Array
    mood: jax.Array

    def enter(
        self, model: Taste, params: EnvParams, state: EnvState, place: jax.Array, new: Interaction
    ) -> tuple["PosteriorView", Fields]:
        """The view, and the fields of the state, after an interaction with the item at a place int32[]."""
        projection = taste_session.with_tastes(
            state.posterior, self.items[place], self.coefficients[place]
        )
        fields = model.append_projected(params, state, new, projection)
        return self._after(params, state, new, projection), fields

    def _after(
        self, params: EnvParams, state: EnvState, new: Interaction, entered: Projection
    ) -> "PosteriorView":
        model = params.taste
        assert model is not None
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
    decays = mood_decays(params.taste, window.position, window.length)
    of_mood = jnp.where(window.valid, params.taste.mood_weight * decays, 0.0)
    kernels = jax.vmap(taste_session.kernel_of, (None, None, 0))(params.taste, window, items)
    columns = jnp.concatenate([kernels, of_mood[None]]).T
    coefficients = taste_session.solve(state.posterior, window, columns).T

    def probability(item: jax.Array, row: jax.Array) -> jax.Array:
        projection = taste_session.with_tastes(state.posterior, item, row)
        decision = model.decide_projected(key, params, state, projection)
        assert decision.probability is not None
        return decision.probability

    probabilities = jax.vmap(probability)(items, coefficients[:-1])
    return PosteriorView(probabilities, items, coefficients[:-1], coefficients[-1])
