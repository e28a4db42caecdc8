"""The tables of an explanation by the taste model."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from jaxsim.explanation.leaving import leaving_tables
from jaxsim.explanation.tables import Page, Row, Table, candidate_table, flip_table, user_name
from jaxsim.explanation.taste_types import (
    PartShare,
    Signals,
    TasteExplanationFields,
    TasteFlip,
    TasteShare,
)

HISTORY_ROWS, KEYWORD_ROWS = 12, 8  # rows shown; an explanation's fields hold all
SMALLEST = 0.005  # log-odds below it, which would be shown as 0.00, are left out of lists
MEANINGS = {
    "constant": "how much the user likes in general",
    "mood": "the latest responses, whatever the items",
    "category": "categories in common",
    "year": "years close together",
    "pros": "pros of similar meaning",
    "cons": "cons of similar meaning",
    "covariance": "items that people rated alike",
}


def taste_page(explanation: TasteExplanationFields) -> Page:
    """Candidate, log-odds, parts of the kernel, history, keywords and flips; long lists are cut."""
    year = explanation.candidate_year
    flips = flip_table(
        "What moves the probability across 1/2", explanation.flips, ("probability",), _flip_cells
    )
    tables = [
        candidate_table(explanation.candidate, ("year", "-" if year is None else str(year))),
        _log_odds_table(explanation),
        *_signal_tables(explanation.signals),
        *leaving_tables(explanation.leaving),
        _part_table(explanation.parts),
        _history_table(explanation),
        _keyword_table(explanation),
        *([flips] if explanation.flips_sought else []),
    ]
    return Page(_headline(explanation), tables)


def _headline(explanation: TasteExplanationFields) -> str:
    """The decision in one sentence."""
    user, name = user_name(explanation.user), explanation.candidate.name
    probability = f"{explanation.probability:.3f}"
    if explanation.like is None:
        return f"{user} likes {name} with probability {probability}: the draw is open"
    verb = "likes" if explanation.like else "dislikes"
    if explanation.semantics == "soft":
        return f"{user} {verb} {name}: the probability of a like is {probability}"
    return f"{user} {verb} {name}; before the draw, the probability of a like was {probability}"


def _log_odds_table(explanation: TasteExplanationFields) -> Table:
    w0, w1, w2 = explanation.calibration
    item = f"w_0 + w_1 (m + b) = {w0:.3f} + {w1:.3f} * {explanation.item_mean:.3f}"
    rows: list[Row] = [
        ("item", item, _signed(explanation.item_part)),
        ("taste", f"w_2 g = {w2:.3f} * {explanation.taste:.3f}", _signed(explanation.taste_part)),
    ]
    together = "both"
    if explanation.chosen is not None and explanation.exposure is not None:
        slope, offset = explanation.exposure
        computed = f"beta (e - o) = {slope:.3f} * ({explanation.chosen:.3f} {-offset:+.3f})"
        rows.append(("being chosen", computed, _signed(explanation.exposure_part)))
        together = "all"
    if explanation.redundancy is not None:
        rows.append(("satiation", _repeated(explanation), _signed(explanation.satiation_part)))
        together = "all"
    probability = f"a probability of {explanation.probability:.3f}"
    rows.append((together, probability, _signed(explanation.log_odds)))
    return Table("Log-odds of a like", ("of", "computed as", "log-odds"), rows)


def _repeated(explanation: TasteExplanationFields) -> str:
    """How alike the candidate is to the last five items."""
    features = asdict(explanation.redundancy) if explanation.redundancy else {}
    known = [f"{name.replace('_', ' ')} {x:.2f}" for name, x in features.items() if x is not None]
    return ", ".join(known) or "nothing came before"


def _signal_tables(signals: Signals | None) -> list[Table]:
    """Rating and duration, where responses have them."""
    if signals is None:
        return []
    rows: list[Row] = []
    if signals.rating_probabilities:
        chances = ", ".join(f"{x:g}: {p:.2f}" for x, p in signals.rating_probabilities)
        rows.append(("rating", _drawn(signals.rating), f"{signals.expected_rating:.2f}", chances))
    if signals.expected_duration is not None:
        mean, unit = f"{signals.expected_duration:,.3g}", signals.unit or ""
        rows.append(("duration", _drawn(signals.duration), mean, unit))
    return [Table("Rating and duration", ("of", "response", "mean", "probabilities, unit"), rows)]


def _drawn(number: float | None) -> str:
    return "open" if number is None else f"{number:,.3g}"


def _part_table(parts: Iterable[PartShare]) -> Table:
    rows: list[Row] = [(x.part, MEANINGS[x.part], _signed(x.log_odds)) for x in parts]
    return Table("Taste: parts of the kernel", ("part", "what it compares", "log-odds"), rows)


def _history_table(explanation: TasteExplanationFields) -> Table:
    shown, rest = explanation.history[:HISTORY_ROWS], explanation.history[HISTORY_ROWS:]
    rows: list[Row] = [
        (_signed(x.log_odds), _response(x), x.name, _listed(_log_odds_of(x.parts))) for x in shown
    ]
    if rest:
        total = {name: sum(_log_odds_of(x.parts).get(name, 0.0) for x in rest) for name in MEANINGS}
        together = _signed(sum(x.log_odds for x in rest))
        rows.append((together, "", f"... {len(rest)} more, together", _listed(total)))
    title = f"Taste: shares of the {explanation.history_length} interactions, the largest first"
    return Table(title, ("log-odds", "response", "item", "of which"), rows)


def _log_odds_of(parts: Iterable[PartShare]) -> dict[str, float]:
    return {x.part: x.log_odds for x in parts}


def _listed(log_odds: Mapping[str, float]) -> str:
    """Parts in words, the largest first."""
    ranked = sorted(log_odds.items(), key=lambda pair: -abs(pair[1]))
    return ", ".join(f"{name} {x:+.2f}" for name, x in ranked if abs(x) >= SMALLEST) or "-"


def _keyword_table(explanation: TasteExplanationFields) -> Table:
    """The largest shares of pros and of cons, and what the two items have in common."""
    shares = [
        (part, x)
        for x in explanation.history
        for part in x.parts
        if part.part in ("pros", "cons") and abs(part.log_odds) >= SMALLEST
    ]
    shares.sort(key=lambda pair: -abs(pair[0].log_odds))
    rows: list[Row] = [
        (
            _signed(part.log_odds),
            part.part,
            f"{x.name} ({_response(x)})",
            _likeness(part, x),
            ", ".join(x.shared_categories) or "none",
            _years(x.year, explanation.candidate_year),
        )
        for part, x in shares[:KEYWORD_ROWS]
    ]
    title = "Taste: the largest shares of pros and cons" + ("" if rows else ": none")
    header = ("log-odds", "part", "item", "keywords", "categories in both", "years")
    return Table(title, header if rows else (), rows)


def _likeness(part: PartShare, share: TasteShare) -> str:
    """Whether the keywords of two items mean similar things, and which of them are the same."""
    words = share.shared_pros if part.part == "pros" else share.shared_cons
    alike = "alike" if part.taste * share.weight > 0 else "unlike"
    return f"{alike}: {', '.join(words)} in both" if words else f"{alike}, none in both"


def _years(*years: int | None) -> str:
    return " and ".join("unknown" if year is None else str(year) for year in years)


def _response(share: TasteShare) -> str:
    return "liked" if share.liked else "disliked"


def _flip_cells(flip: TasteFlip) -> Row:
    return (f"{flip.probability:.3f}",)


def _signed(log_odds: float) -> str:
    return f"{log_odds:+.3f}"
