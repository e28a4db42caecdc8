"""D_cate: the categories of an item that are on neither too many nor too few items."""

from collections import Counter
from collections.abc import Sequence

from prep.features.keywords import exceeds_share


def filter_categories(
    items: Sequence[Sequence[str]],
    max_category_share: float,
    min_category_items: int,
    single_category: bool = False,
) -> list[list[str]]:
    """Drop the category names on too many or too few items, but never an item's last.

    Args:
        items: the category names of each item; an item may have none.
        max_category_share: a name on more than this share of the items is dropped.
        min_category_items: a name on fewer items is dropped.
        single_category: keep only the rarest remaining name of each item, another reading of "the same category"
            in the paper.

    Returns:
        The names kept for each item, sorted. An item that would lose all keeps its rarest name; of
        equally rare names the alphabetically first.
    """
    counts = Counter(name for names in items for name in set(names))
    kept = {
        name
        for name, count in counts.items()
        if count >= min_category_items and not exceeds_share(count, max_category_share, len(items))
    }
    result = []
    for names in items:
        left = kept.intersection(names) or set(names)
        only_one = single_category or not kept.intersection(names)
        by_rarity = sorted(left, key=lambda name: (counts[name], name))
        result.append(by_rarity[:1] if only_one else sorted(left))
    return result
