"""The short report after a build."""

from collections.abc import Mapping
from typing import Any

from prep.build import BuildResult

_WORDS_SHOWN = 8


def format_report(result: BuildResult) -> str:
    """Describe a build in a dozen lines, for people."""
    manifest = result.contents.manifest
    counts, settings = manifest["counts"], manifest["settings"]
    words = result.words
    frequent = sorted(words.filter.kept, key=lambda word: (-words.filter.counts[word], word))
    common = sorted(words.filter.too_common, key=lambda word: (-words.filter.counts[word], word))
    like_share = counts["likes"] / counts["interactions"]
    lines = {
        manifest["dataset"]: (
            f"{counts['users']:,} users, {counts['items']:,} items, "
            f"{counts['interactions']:,} ratings "
            f"({_duplicates(counts)}from {result.ratings.raw.origin})"
        ),
        "likes": f"{like_share:.1%} of the ratings (at least {settings['like_threshold']:g})",
        "sessions": f"{counts['session_users']:,} users have the five ratings that a session needs",
        "replies": (
            f"{len(words.annotations.keywords):,} parsed, "
            f"{counts['items_without_reply']:,} missing, "
            f"{counts['replies_unparsed']:,} that do not parse; model: {words.language_model}"
        ),
        "keywords": (
            f"{counts['keywords']:,} of {counts['keywords_before_filter']:,} kept; "
            f"{len(words.filter.too_rare):,} on fewer than {settings['min_items']} items, "
            f"{len(common):,} on more than {settings['max_share']:.0%}"
        ),
        "  most frequent": _with_counts(frequent, words.filter.counts),
        "  too common": _with_counts(common, words.filter.counts),
        "  items without": (
            f"{counts['items_without_pos_keywords']:,} of a pro, "
            f"{counts['items_without_neg_keywords']:,} of a con"
        ),
        "categories": f"{counts['categories']:,}",
        "SASRec": _sasrec_line(manifest["sasrec"]),
        "seconds": ", ".join(f"{stage} {spent:.1f}" for stage, spent in result.seconds.items()),
        "written to": str(result.path),
    }
    return "\n".join(f"{label:<16}{text}" for label, text in lines.items() if text)


def _duplicates(counts: Mapping[str, int]) -> str:
    dropped = counts["duplicates_dropped"]
    return f"{dropped:,} earlier ratings of the same item dropped; " if dropped else ""


def _with_counts(words: list[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} ({counts[word]:,})" for word in words[:_WORDS_SHOWN])


def _sasrec_line(entry: Mapping[str, Any]) -> str:
    auc = entry["validation_auc"]  # None where the validation labels are all the same
    return "" if auc is None else f"validation AUC {auc:.3f} after epoch {entry['epochs_trained']}"
