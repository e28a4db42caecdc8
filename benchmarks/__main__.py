"""The command line: `python -m benchmarks fidelity [--dataset D] [--json FILE]`."""

import json
from pathlib import Path
from typing import Any, Literal

from benchmarks.fidelity import fidelity, format_report
from jaxsim import InputError, load_dataset
from jaxsim.cli import main
from jaxsim.files import check_writable, write_text


def run_fidelity(
    dataset: str = "ml-100k",
    split: Literal["test", "validation", "validation+test"] = "test",
    json: Path | None = None,
) -> None:
    """Measure how well the simulator predicts what held-out people liked.

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        split: which labels to predict.
        json: also write the result here.
    """
    if json is not None:
        check_writable(json)
        if json.is_dir():
            raise InputError(f"--json {json}: is a folder; give a file")
    packed = load_dataset(dataset)
    print(f"judging the {split} split of {packed.name} ...", flush=True)
    result = fidelity(packed, split)
    print(format_report(result))
    write_json(json, result)


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write a result as JSON, if a path is given."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(
        {"fidelity": run_fidelity},
        prog="python -m benchmarks",
        description="Measure how true and how fast the simulator is.",
    )
