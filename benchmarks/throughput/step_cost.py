"""What one step of the environment must move and compute at least, by formula.

The largest part by far is f_sta's cache: attention reads keys and values of the whole window in every block.
"""

import jax
import jax.numpy as jnp

from jaxsim import EnvParams, EnvState, ItemFeatures, UserSimulator

# Bytes that a position of the window costs beside its pair with the candidate: item and response as the votes read
# them (4 + 1), the item again for the check of the action (4) and for the draw of an allowed one (4).
_POSITION_BYTES = 13


def step_bytes(env: UserSimulator, params: EnvParams) -> int:
    """Bytes of one step of one session, 2 blocks W width 4 + 17 W with pair tables.

    The first term is f_sta's cache, the second the window, of which 4 bytes a position are the pair's code. With
    item features a position has its item's keywords, embedding and categories in place of that code. What is
    small is left out: writing one position, weights, the candidate's own row, the reset of one session in 37.
    """
    model = env.sasrec
    cache = 2 * model.num_blocks * env.window * model.width * 4
    return cache + env.window * (_POSITION_BYTES + pair_bytes(params))


def pair_bytes(params: EnvParams) -> int:
    """Bytes that comparing the candidate with one history item reads."""
    catalogue = params.catalogue
    if not isinstance(catalogue, ItemFeatures):
        return 4
    # A history item is compared in one polarity, so half of the axis of length 2 is read.
    one_side = (catalogue.words, catalogue.embedding)
    halves = sum(x.nbytes // (2 * x.shape[0]) for x in one_side)
    return halves + catalogue.categories.nbytes // catalogue.categories.shape[0]


def step_flops(env: UserSimulator, params: EnvParams) -> int:
    """Floating-point operations of the matrix products of one step of one session.

    blocks (16 width^2 + 4 W width) + 2 width: queries, keys, values, output and feed-forward layers of one token,
    its attention over W positions, and the candidate's logit. With item features, 4 W D for the cosines in both
    polarities.
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
