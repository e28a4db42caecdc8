"""Checks of options that several benchmarks have."""

from dataclasses import dataclass, fields, replace
from typing import Any

from agents.algorithms.algorithm import AlgorithmConfig
from agents.algorithms.registry import ALGORITHMS
from jaxsim import InputError


def check_counts(least: int = 1, **values: int) -> None:
    """Check whole numbers; the name of a value is that of its option, with underscores.

    Raises:
        InputError: one is below `least`.
    """
    for name, value in values.items():
        if value < least:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {value}: give a whole number from {least}")


def check_agent(name: str, option: str = "agent") -> None:
    """Check the name of an agent.

    Raises:
        InputError: there is none of this name.
    """
    if name not in ALGORITHMS:
        raise InputError(f"--{option} {name}: unknown; choose from {', '.join(ALGORITHMS)}")


def with_candidates(config: AlgorithmConfig, candidates: int | None) -> AlgorithmConfig:
    """The same settings for a policy over C candidates in place of all items.

    Args:
        config: of an agent.
        candidates: C; 0 for all items; None leaves it to the agent.

    Raises:
        InputError: there is no such setting, or it is out of bounds.
    """
    if candidates is None:
        return config
    if "candidates" not in {field.name for field in fields(config)}:
        if candidates == 0:
            return config
        raise InputError(f"--candidates {candidates}: this agent chooses among all items only")
    changes: dict[str, Any] = {"candidates": candidates}
    changed = replace(config, **changes)
    changed.check()
    return changed


@dataclass(frozen=True)
class _Catalogue:
    """What an algorithm asks of an environment to choose its number of candidates."""

    num_items: int
    window: int = 150
    session_capacity: int = 100
    repeats: str = "mask"


def candidates_of(agent: str, candidates: int | None, items: int) -> int | None:
    """Among how many candidates an agent chooses with N items, None for all of them.

    Args:
        agent: one of `ALGORITHMS`.
        candidates: its setting: a number, 0 for all items, or None to leave it to the agent.
        items: N.

    Raises:
        InputError: the agent refuses the number.
    """
    config = with_candidates(ALGORITHMS[agent].config(), candidates)
    catalogue: Any = _Catalogue(items)
    chosen: int | None = getattr(ALGORITHMS[agent].algorithm(catalogue, config), "candidates", None)
    return chosen
