"""Random questions for the tests of explanations, and the simulator's own answers to them."""

from functools import cache

import jax
import numpy as np
from hypothesis import strategies as st

LONGEST, LONG = 9, 15  # histories of the first fit the window of 12
ROUNDING = 3e-5  # of f_sta's probability in float32, with weights as large as these


@st.composite
def questions(draw, longest=LONGEST, num_items=40, num_users=23):
    """A history with padding, a candidate (at times of the history), a user and a key (or None)."""
    item = st.integers(-1, num_items - 1)
    items = draw(st.lists(item, min_size=longest, max_size=longest))
    labels = draw(st.lists(st.integers(0, 1), min_size=longest, max_size=longest))
    known = [i for i in items if i >= 0] or [0]
    candidate = draw(st.integers(0, num_items - 1) | st.sampled_from(known))
    user = draw(st.integers(-1, num_users - 1))
    seed = draw(st.none() | st.integers(0, 1000))
    return items, labels, candidate, user, None if seed is None else jax.random.key(seed)


@cache
def compiled_respond(env):
    def call(key, items, labels, candidate, params, user):
        return env.respond(key, items, labels, candidate, params, user, reasons=True)

    return jax.jit(call)


def ask(simulator, items, labels, candidate, user, key):
    """The decision on a history, padded for one compilation to serve all."""
    key = jax.random.key(0) if key is None else key
    pad = [-1] * (LONG - len(items))
    arrays = np.array([*items, *pad], np.int32), np.array([*labels, *pad], np.int8)
    respond = compiled_respond(simulator.env)
    return jax.device_get(respond(key, *arrays, candidate, simulator.params, user))
