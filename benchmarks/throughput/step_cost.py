"""How many bytes and operations one step of the environment needs at least, by formula.

By far the largest part is f_sta's cache: attention reads the keys and values of the whole window in every block.
"""

import jax
import jax.numpy as jnp

from jaxsim import EnvParams, EnvState, UserSimulator
from jaxsim.catalogue import ItemFeatures
from jaxsim.taste import KernelTable

# Bytes per position of the window, without its pair with the candidate: the votes read item and response (4 + 1),
# the check of the action reads the item again (4), and so does the draw of an allowed action (4).
_POSITION_BYTES = 13


def step_bytes(env: UserSimulator, params: EnvParams) -> int:
    """Bytes of one step of one session: 2 blocks W width 4 + 17 W with pair tables.

    The first term is f_sta's cache, with 2 in place of 4 where it is bfloat16.
    The second is the window, where 4 bytes per position are the code of the pair;
    with item features these are the keywords, embedding and categories of the item. Small parts are left out:
    writing one position, weights, the candidate's own row, the reset of one session in 37.
    """
    if params.taste is not None:
        return _taste_bytes(env, params)
    model = env.sasrec
    of_number = jnp.dtype(env.cache_dtype).itemsize
    cache = 2 * model.num_blocks * env.window * model.width * of_number
    return cache + env.window * (_POSITION_BYTES + pair_bytes(params))


def _taste_bytes(env: UserSimulator, params: EnvParams) -> int:
    """Bytes of one step under the taste model: its factor, a kernel value per position, and the window.

    With features in place of the kernel's table, the features of the window's items are read.
    """
    state: EnvState = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]
    assert params.taste is not None
    kernel = params.taste.kernel.values
    of_pair = 4 if isinstance(params.taste.kernel, KernelTable) else 4 * kernel.shape[1]
    return tree_bytes(state.posterior) + env.window * (_POSITION_BYTES + of_pair)


def pair_bytes(params: EnvParams) -> int:
    """Bytes that are read to compare the candidate with one history item."""
    catalogue = params.catalogue
    if not isinstance(catalogue, ItemFeatures):
        return 4
    # A history item is compared in one polarity, so one half of the axis of length 2 is read.
    one_side = (catalogue.words, catalogue.embedding)
    halves = sum(x.nbytes // (2 * x.shape[0]) for x in one_side)
    return halves + catalogue.categories.nbytes // catalogue.categories.shape[0]


def step_flops(env: UserSimulator, params: EnvParams) -> int:
    """Floating-point operations of the matrix products of one step of one session.

    blocks (16 width^2 + 4 W width) + 2 width: queries, keys, values, output and feed-forward layers of one token,
    its attention over W positions, and the candidate's logit. With item features 4 W D more, for the cosines in
    both polarities.
    """
    width, window = env.sasrec.width, env.window
    products = env.sasrec.num_blocks * (16 * width**2 + 4 * window * width) + 2 * width
    if isinstance(params.catalogue, ItemFeatures):
        products += 4 * window * params.catalogue.embedding.shape[-1]
    return products


def state_bytes(env: UserSimulator, params: EnvParams) -> int:
    """Bytes of one session's state on the device."""
    shape: EnvState = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]
    return tree_bytes(shape)


def tree_bytes(tree: object) -> int:
    """Bytes of the arrays, or shapes of arrays, in a pytree."""
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
