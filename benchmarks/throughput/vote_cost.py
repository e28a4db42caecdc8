"""What each vote costs alone, by history length and catalogue size.

The catalogues are random: the time depends on their sizes, not on their values. For every number of items, an item
has as many keywords and as long an embedding as in MovieLens 100K with the default encoder.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from benchmarks.hardware import Timing, device_memory, repeated
from benchmarks.throughput.step_cost import tree_bytes
from jaxsim import Decision, SASRec
from jaxsim.catalogue import Catalogue, ItemFeatures, PairTables
from jaxsim.ensemble import decide
from jaxsim.out_of_memory import is_out_of_memory
from jaxsim.sasrec import KeyValues
from prep.statistic_model import SASRecTraining

HISTORIES = (20, 50, 150, 500)
CATALOGUES = (1_000, 10_000, 100_000, 1_000_000)
CANDIDATES = 1024  # decisions at once
KEYWORDS, VOCABULARY, CATEGORY_WORDS, DIMENSION = 7, 975, 1, 384
_MEMORY_SHARE = 0.5  # larger catalogues are skipped

Row = dict[str, Any]
LogicalVote = Literal["f_mat", "f_sim"]


def measure_votes(
    repeats: int,
    table_budget: int,
    histories: tuple[int, ...] = HISTORIES,
    catalogues: tuple[int, ...] = CATALOGUES,
    candidates: int = CANDIDATES,
) -> list[Row]:
    """Microseconds per decision of each vote alone, for many candidates at once.

    Args:
        repeats: timed runs; the median counts.
        table_budget: bytes that pair tables may take.
        histories: history lengths H.
        catalogues: numbers of items N.
        candidates: decisions at once, each with its own random candidate and history.

    Returns:
        Rows of `vote`, `catalogue` ("tables", "features", or None for f_sta, which does not read it), `items`,
        `history` and `microseconds`. Catalogues that do not fit the device are skipped.
    """
    rows: list[Row] = []
    for num_items in catalogues:
        print(f"  {num_items:,} items ...", flush=True)
        for path, build in (("tables", random_tables), ("features", random_features)):
            if _fits(path, tree_bytes(jax.eval_shape(partial(build, num_items))), table_budget):
                measure = partial(_logical_rows, build, path, num_items)
                rows += _within_memory(partial(measure, histories, candidates, repeats))
        rows += _within_memory(partial(_statistic_rows, num_items, histories, candidates, repeats))
    return rows


def _fits(path: str, size: int, table_budget: int) -> bool:
    limit = device_memory() * _MEMORY_SHARE
    return size <= (min(table_budget, limit) if path == "tables" else limit)


def _within_memory(measure: Callable[[], list[Row]]) -> list[Row]:
    try:
        return measure()
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return []


def random_tables(num_items: int) -> PairTables:
    """Pair tables of N items with random contents."""
    key_codes, key_keywords = jax.random.split(jax.random.key(0))
    codes = jax.random.bits(key_codes, (num_items, 2, num_items))
    return PairTables(
        codes=jax.lax.bitcast_convert_type(codes, jnp.int32),
        keywords=_random_keywords(key_keywords, num_items),
    )


def random_features(num_items: int) -> ItemFeatures:
    """Features of N items with random contents."""
    keys = jax.random.split(jax.random.key(0), 3)
    bound = DIMENSION**-0.5  # so that vectors are at most of length 1

    def vectors(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (2, DIMENSION), jnp.float32, -bound, bound)

    return ItemFeatures(
        keywords=_random_keywords(keys[0], num_items),
        keyword_bits=None,
        # In batches, because random bits need as much memory again.
        embedding=jax.lax.map(vectors, jax.random.split(keys[1], num_items), batch_size=1000),
        categories=jax.random.bits(keys[2], (num_items, CATEGORY_WORDS)),
    )


def _random_keywords(key: jax.Array, num_items: int) -> jax.Array:
    return jax.random.randint(key, (num_items, 2, KEYWORDS), 0, VOCABULARY, jnp.int32)


def _logical_rows(
    build: Callable[[int], Catalogue],
    path: str,
    num_items: int,
    histories: tuple[int, ...],
    candidates: int,
    repeats: int,
) -> list[Row]:
    catalogue = jax.jit(build, static_argnums=0)(num_items)
    rows = []
    for history in histories:
        decisions = _random_decisions(num_items, history, candidates)
        for vote in ("f_mat", "f_sim"):
            timing = repeated(partial(_margins, vote, catalogue, *decisions), repeats)
            rows.append(_row(vote, path, num_items, history, timing, candidates))
    return rows


@partial(jax.jit, static_argnums=0)
def _margins(
    vote: LogicalVote,
    catalogue: Catalogue,
    candidates: jax.Array,
    items: jax.Array,
    likes: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Both sides of one vote; XLA removes what only the other vote needs."""

    def one(candidate: jax.Array, items: jax.Array, likes: jax.Array) -> Decision:
        return decide(jax.random.key(0), catalogue, candidate, items, likes, jnp.float32(0))

    decision = jax.vmap(one)(candidates, items, likes)
    if vote == "f_mat":
        return decision.alpha_pos, decision.alpha_neg
    return decision.beta_pos, decision.beta_neg


def _random_decisions(
    num_items: int, history: int, candidates: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Candidates int32[P], and their histories int32[P, H], int8[P, H]."""
    keys = jax.random.split(jax.random.key(1), 3)
    candidate = jax.random.randint(keys[0], (candidates,), 0, num_items, jnp.int32)
    items = jax.random.randint(keys[1], (candidates, history), 0, num_items, jnp.int32)
    likes = jax.random.bernoulli(keys[2], shape=items.shape).astype(jnp.int8)
    return candidate, items, likes


def _statistic_rows(
    num_items: int, histories: tuple[int, ...], candidates: int, repeats: int
) -> list[Row]:
    decays = SASRecTraining().decays
    model = SASRec(num_items=num_items, num_users=1, window=max(histories), decays=decays)
    tokens = jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int8), jnp.int32(0)
    variables = jax.jit(partial(model.init, method="next_logits"))(jax.random.key(0), *tokens)
    rows = []
    for history in histories:
        timing = _statistic_timing(model, variables, history, candidates, repeats)
        rows.append(_row("f_sta", None, num_items, history, timing, candidates))
    return rows


def _statistic_timing(
    model: SASRec, variables: Any, history: int, candidates: int, repeats: int
) -> Timing:
    """f_sta alone: encode the last token of a window of H positions, then the candidate's logit."""

    def judge(
        variables: Any, candidate: jax.Array, item: jax.Array, cache: KeyValues
    ) -> tuple[jax.Array, KeyValues]:
        token = item, jnp.int8(1), cache, jnp.int32(history - 1)
        hidden, cache = model.apply(variables, *token, method="encode_token")
        return model.apply(variables, hidden, candidate, 0, method="logit"), cache

    # The cache is updated in place, as in a session.
    vote = jax.jit(jax.vmap(judge, (None, 0, 0, 0)), donate_argnums=3)
    candidate, items, _ = _random_decisions(model.num_items, 1, candidates)
    caches = [_empty_cache(model, candidates, history)]

    def run() -> jax.Array:
        logit, cache = vote(variables, candidate, items[:, 0], caches.pop())
        caches.append(cache)
        return logit

    return repeated(run, repeats)


def _empty_cache(model: SASRec, candidates: int, history: int) -> KeyValues:
    def zeros() -> tuple[jax.Array, ...]:
        shape = (candidates, history, model.width)
        return tuple(jnp.zeros(shape, jnp.float32) for _ in range(model.num_blocks))

    shape = (candidates, history, len(model.decays))
    sums = jnp.zeros(shape, jnp.float32) if model.decays else None
    return KeyValues(keys=zeros(), values=zeros(), residuals=sums)


def _row(
    vote: str, path: str | None, num_items: int, history: int, timing: Timing, candidates: int
) -> Row:
    return {
        "vote": vote,
        "catalogue": path,
        "items": num_items,
        "history": history,
        "microseconds": timing.median / candidates * 1e6,
    }
