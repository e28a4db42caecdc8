"""The report after a build."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsim.dataset import MIN_INTERACTIONS
from jaxsim.tables import format_table
from prep.build import BuildResult
from prep.convert import skipped_lines
from prep.replies.merge import ReplyCounts
from prep.synthetic import SyntheticData

_WORDS_SHOWN = 8
_CATEGORIES_SHOWN = 12
_BAR_WIDTH = 30
_ORDERS = {
    "time": "",
    "permutation": "there are no times, so each user's ratings are permuted at random (--order-seed {seed})",
    "file": "there are no times, so each user's ratings have the order of the file",
}
_LOO = "loo: each user's last rating is for testing, the one before it for validation"


def format_report(result: BuildResult) -> str:
    """Describe a build in a screenful, for people."""
    manifest = result.contents.manifest
    counts, settings = manifest["counts"], manifest["settings"]
    words = result.words
    frequent = _by_count(words.filter.kept, words.filter.counts)
    rare, common = words.filter.too_rare, words.filter.too_common
    dropped = _by_count([*rare, *common], words.filter.counts)
    like_share = counts["likes"] / counts["interactions"]
    lines = {
        manifest["dataset"]: (
            f"{counts['users']:,} users, {counts['items']:,} items, "
            f"{counts['interactions']:,} ratings "
            f"({_dropped(counts)}from {result.ratings.raw.origin})"
        ),
        "not read": "\n                ".join(skipped_lines(result.ratings.raw, words.skipped)),
        "not described": _count_of(counts["items_not_described"], "item is named by its id alone"),
        "likes": f"{like_share:.1%} of the ratings (at least {settings['like_threshold']:g})",
        "order": _ORDERS[settings["order"]].format(seed=settings["order_seed"]),
        "split": _LOO if settings["split"] == "loo" else "",
        "sessions": f"{counts['session_users']:,} users have the five ratings that a session needs",
        "words from": words.language_model,
        "T_obj": _replies(words.annotations.t_obj, counts["items_without_reply"]),
        "without T_obj": _without_reply(counts),
        "T_sub": _replies(words.annotations.t_sub, 0),
        "keywords": (
            f"{counts['keywords']:,} of {counts['keywords_before_filter']:,} kept; "
            f"{len(rare):,} on fewer than {settings['min_items']} items, "
            f"{len(common):,} on more than {settings['max_share']:.0%}"
        ),
        "  most kept": _with_counts(frequent, words.filter.counts),
        "  most dropped": _with_counts(dropped, words.filter.counts),
        "  items without": (
            f"{counts['items_without_pos_keywords']:,} of a pro, "
            f"{counts['items_without_neg_keywords']:,} of a con"
        ),
        "categories": _histogram(result),
        "SASRec": _sasrec_line(manifest["sasrec"]),
        "taste": _taste_line(manifest["taste"]),
        "exposure": exposure_line(manifest["exposure"]),
        "ratings": _rating_line(manifest["signals"]),
        "durations": _duration_line(result),
        "departure": _departure_line(manifest["departure"]),
        "visits": _visits_line(manifest["visits"]),
        "satiation": _satiation_line(manifest["satiation"]),
        "seconds": ", ".join(f"{stage} {spent:.1f}" for stage, spent in result.seconds.items()),
        "written to": str(result.path),
    }
    return "\n".join(f"{label:<15} {text}" for label, text in lines.items() if text)


def format_synthetic(path: Path, data: SyntheticData) -> str:
    """Describe a synthetic dataset in a few lines, for people."""
    counts = data.manifest["counts"]
    return "\n".join(
        [
            f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions, "
            f"{counts['likes'] / counts['interactions']:.1%} of them likes; all synthetic",
            f"{counts['keywords']:,} keywords, {counts['categories']:,} categories",
            f"written to {path}",
        ]
    )


def warnings_of(result: BuildResult) -> list[str]:
    """Why a dataset cannot be simulated with the environment's default settings, one sentence for each reason."""
    counts = result.contents.manifest["counts"]
    window = result.contents.manifest["sasrec"].get("architecture", {}).get("window", 0)
    warnings = []
    if not counts["session_users"]:
        warnings.append(
            f"no user has the {MIN_INTERACTIONS} ratings that a session needs: nobody can be simulated"
        )
    if counts["items"] <= window:
        warnings.append(
            f"{counts['items']} items do not fill a window of {window} without repeats: pass jaxsim.make a "
            'shorter history_length and session_capacity, or repeats="allow"'
        )
    return warnings


def _dropped(counts: Mapping[str, int]) -> str:
    reasons = {
        "earlier ratings of the same item dropped": counts["duplicates_dropped"],
        "of users or items with too few dropped": counts["dropped_for_too_few_ratings"],
    }
    return "".join(f"{count:,} {reason}; " for reason, count in reasons.items() if count)


def _count_of(count: int, singular: str) -> str:
    plural = singular.replace("item is named by its id", "items are named by their ids")
    return f"{count:,} {singular if count == 1 else plural}" if count else ""


def _without_reply(counts: Mapping[str, int]) -> str:
    missing = counts["items_without_reply"]
    share = counts["interactions_without_reply"] / counts["interactions"]
    if not missing:
        return ""
    return f"{missing:,} of {counts['items']:,} items, which have {share:.1%} of the ratings"


def _replies(counts: ReplyCounts, missing: int) -> str:
    parts = {
        "parsed": counts.parsed,
        "missing": missing,
        "that do not parse": counts.unparsed,
        "given twice": counts.repeated,
        "of items that were left out": counts.left_out,
        "of reviews that are not for training": counts.not_training,
        "of ratings that do not exist": counts.unknown,
    }
    return ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)


def _by_count(words: list[str], counts: Mapping[str, int]) -> list[str]:
    return sorted(words, key=lambda word: (-counts[word], word))


def _with_counts(words: list[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} ({counts[word]:,})" for word in words[:_WORDS_SHOWN])


def _histogram(result: BuildResult) -> str:
    """How many categories there are, then a table with a bar for each of the categories on the most items."""
    rows = result.contents.arrays["item_categories"]
    names = result.contents.categories
    sizes = np.bincount(rows[rows >= 0], minlength=len(names))
    largest = np.argsort(-sizes, kind="stable")[:_CATEGORIES_SHOWN]
    bars = -(-_BAR_WIDTH * sizes // max(1, sizes.max(initial=0)))  # rounded up
    without = int((rows < 0).all(axis=1).sum())
    lines = [f"{len(names):,} ({without:,} items without)" if without else f"{len(names):,}"]
    if names:
        cells = [[f"  {names[i]}", f"{sizes[i]:,}", "#" * bars[i]] for i in largest]
        lines.append(format_table(["  category", "items", ""], cells, left=(0, 2)))
    if len(names) > len(largest):
        lines.append(f"  ... and {len(names) - len(largest):,} more")
    return "\n".join(lines)


def _sasrec_line(entry: Mapping[str, Any]) -> str:
    auc = entry["validation_auc"]  # None where the validation labels are all the same
    return "" if auc is None else f"validation AUC {auc:.3f} after epoch {entry['epochs_trained']}"


def _rating_line(entry: Mapping[str, Any]) -> str:
    """The scale of the ratings that users give, or why they give none."""
    if "rating" not in entry:
        return f"users answer without ratings: {entry['no_rating']}"
    levels = entry["rating"]["levels"]
    return f"users answer with one of {len(levels)}, from {levels[0]:g} to {levels[-1]:g}"


def _duration_line(result: BuildResult) -> str:
    """What was found in the column of durations; empty without one."""
    durations, missing = result.ratings.durations, result.ratings.raw.missing_duration
    if durations is None:
        return ""
    known = durations.values[np.isfinite(durations.values)]
    share = 1 - len(known) / len(durations.values)
    gaps = f"{share:.1%} missing (first: {missing})" if missing else "none missing"
    low, median, high = np.quantile(known, [0, 0.5, 1]) if len(known) else (np.nan,) * 3
    use = "; they are the ratings, because there are no others" if durations.are_ratings else ""
    return f"in {durations.unit}, from {low:,.4g} to {high:,.4g}, median {median:,.4g}; {gaps}{use}"


def _taste_line(entry: Mapping[str, Any]) -> str:
    """How much each part of the kernel of tastes weighs, the heaviest first."""
    weights = sorted(entry["taste_weights"].items(), key=lambda part: -part[1])
    return "weights " + ", ".join(f"{name} {weight:.3f}" for name, weight in weights)


def exposure_line(entry: Mapping[str, Any]) -> str:
    """How well the model tells which items people rate, and what that says about a like."""
    if "coefficients" not in entry:
        return f"not fitted: {entry['reason']}"
    validation, label = entry["validation"], entry["label"]
    auc = "" if validation is None else f"validation AUC {validation['auc']:.3f}; "
    if label is None:
        return f"{auc}likes are not corrected: {entry['reason']}"
    row = label["exposure"]
    kept = "kept" if entry["applies"] else "switched off, because the interval contains zero"
    return f"{auc}beta {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {kept}"


def _departure_line(entry: Mapping[str, Any]) -> str:
    """What makes users leave, or why their departure stays constant."""
    reason = entry.get("constant_because")
    if reason:
        return f"constant: {reason}"
    rows = entry["tables"][entry["training"]["specification"]]
    kept = [f"{x['term']} {x['coefficient']:+.3f} ({x['error']:.3f})" for x in rows if x["kept"]]
    return (
        f"{entry['sessions']:,} sessions of {entry['mean_length']:.1f} ratings; log-odds of leaving: "
        f"{', '.join(['position', *kept])}"
    )


def _visits_line(entry: Mapping[str, Any]) -> str:
    """Whether users return, or why that is not known."""
    reason = entry.get("none_because")
    if reason:
        return f"users who return are not fitted: {reason}"
    kept = [
        f"{row['term']} {row['coefficient']:+.3f} ({row['error']:.3f}) on the {row['part']}"
        for row in entry["table"]
        if row["kept"]
    ]
    return (
        f"{entry['returns']:,} returns after {entry['ends']:,} sessions; gaps of {len(entry['means'])} components"
        f"; terms: {', '.join(kept) or 'none'}"
    )


def _satiation_line(entry: Mapping[str, Any]) -> str:
    """Whether users tire of the same thing in a row, or why it is not known."""
    if "reason" in entry:
        return f"not fitted: {entry['reason']}"
    rows = entry["tables"]["raw"]
    terms = [f"{x['term']} {x['coefficient']:+.3f} ({x['error']:.3f})" for x in rows]
    return f"{', '.join(terms)}: {'some' if entry['shows'] else 'none to be seen'}"
