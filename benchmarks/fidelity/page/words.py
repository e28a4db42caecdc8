"""What the figures mean, in plain sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.controls import EXCHANGED, OWN, PERMUTED
from benchmarks.fidelity.registry import BEST_MODELS, DEFAULT_SIMULATOR


def percent(value: float | None) -> str:
    """A share in per cent, with one decimal; a dash if there is none."""
    return "-" if value is None else f"{100 * value:.1f}%"


def range_of(estimate: Estimate, form: str = ".1f") -> str:
    """The interval of a share in brackets, in per cent; nothing if there is none."""
    if estimate["low"] is None or estimate["high"] is None:
        return ""
    return f" ({100 * estimate['low']:{form}}% to {100 * estimate['high']:{form}}%)"


def best_model(result: Mapping[str, Any]) -> str | None:
    """The model that the text speaks of: the first of BEST_MODELS that was judged."""
    return next((name for name in BEST_MODELS if name in result["auc"]), None)


def verdict(difference: Estimate | None) -> str:
    """How a model compares with the reference, by the interval of the difference of their ROC-AUCs."""
    if difference is None or difference["low"] is None or difference["high"] is None:
        return "cannot be compared with"
    if difference["low"] > 0:
        return "is better than"
    return "is worse than" if difference["high"] < 0 else "is not clearly different from"


def sentences(result: Mapping[str, Any]) -> list[str]:
    """The meaning of the result, one statement each; what was not measured is not mentioned."""
    parts = (_ranking, _like_rate, _calibration, _controls, _cold)
    return [sentence for part in parts for sentence in part(result)]


def _ranking(result: Mapping[str, Any]) -> Iterator[str]:
    auc, reference = result["auc"], result["reference"]
    default = auc.get(DEFAULT_SIMULATOR)
    if default is not None and default["value"] is not None:
        yield (
            "Take a rating that is a like and one that is a dislike. The default simulator finds the like more "
            f"probable in {percent(default['value'])}{range_of(default)} of such pairs. Guessing gives 50%."
        )
    best = best_model(result)
    if best and reference and auc[best]["value"] is not None:
        yield (
            f"The model {best} reaches {percent(auc[best]['value'])}{range_of(auc[best])}. It "
            f"{verdict(result['difference'].get(best))} {reference}, the best simple baseline, which reaches "
            f"{percent(auc[reference]['value'])}."
        )


def _like_rate(result: Mapping[str, Any]) -> Iterator[str]:
    rates, error = result["like_rate"], result["like_rate_error"].get(DEFAULT_SIMULATOR)
    if error is None or error["value"] is None:
        return
    meaning = "its users are about as hard to please as people"
    if error["low"] is not None and error["low"] > 0:
        meaning = "its users are too easily pleased"
    elif error["high"] is not None and error["high"] < 0:
        meaning = "its users are too hard to please"
    yield (
        f"People liked {percent(rates['real']['value'])} of what they rated in this split. The default simulator "
        f"says {percent(rates[DEFAULT_SIMULATOR]['value'])}: {meaning}."
    )


def _calibration(result: Mapping[str, Any]) -> Iterator[str]:
    best = best_model(result)
    for name in filter(None, (DEFAULT_SIMULATOR, best)):
        error = result["ece"].get(name)
        if error is not None and error["value"] is not None:
            yield (
                f"A probability by {name} is off by {100 * error['value']:.1f} points on average from the share "
                "of likes among the ratings that get such a probability."
            )


def _controls(result: Mapping[str, Any]) -> Iterator[str]:
    controls, best = result["controls"], best_model(result)
    own, other = (controls.get(f"{best}_{suffix}") for suffix in (OWN, EXCHANGED))
    if own and other and own["value"] is not None and other["value"] is not None:
        yield (
            f"Between ratings of the same item, only the person matters. There {best} reaches "
            f"{percent(own['value'])} with people's own histories, and {percent(other['value'])}{range_of(other)} "
            "with those of other people, which should be 50%."
        )
    permuted, real = controls.get(f"f_mat_{PERMUTED}"), result["auc"].get("f_mat")
    if permuted and real and real["value"] is not None and permuted["value"] is not None:
        yield (
            f"If the keywords are permuted between the items, f_mat falls from {percent(real['value'])} to "
            f"{percent(permuted['value'])}. What is left does not come from what the keywords say: a history of "
            "many likes shares keywords of liked items with any item."
        )


def _cold(result: Mapping[str, Any]) -> Iterator[str]:
    reference, cold = result["reference"], result.get("cold_items") or {}
    if reference in cold and cold[reference]["value"] is not None:
        yield (
            f"For items without any rating, {reference} falls from {percent(result['auc'][reference]['value'])} "
            f"to {percent(cold[reference]['value'])}{range_of(cold[reference])}."
        )
    for row in result.get("cold_curve", ())[:1]:
        for name, gain in row["keyword_gain"].items():
            if gain["value"] is not None:
                yield (
                    f"For these items, keywords change the ROC-AUC of {name} by {100 * gain['value']:+.1f} points"
                    f"{range_of(gain, '+.1f')}."
                )
