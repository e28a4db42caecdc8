"""The command line: `python -m benchmarks COMMAND [--json FILE]`."""

from pathlib import Path
from typing import Literal

from benchmarks.agreement import run_agreement
from benchmarks.convert import run_convert
from benchmarks.fidelity import fidelity, format_report
from benchmarks.output import check_json, write_json
from benchmarks.search import search
from benchmarks.table1 import run_table1
from benchmarks.table2 import run_table2
from benchmarks.throughput.command import run_throughput
from benchmarks.training.command import run_training
from jaxsim import load_dataset
from jaxsim.cli import main


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
    check_json(json)
    packed = load_dataset(dataset)
    print(f"judging the {split} split of {packed.name} ...", flush=True)
    result = fidelity(packed, split)
    print(format_report(result))
    write_json(json, result)


if __name__ == "__main__":
    main(
        {
            "fidelity": run_fidelity,
            "throughput": run_throughput,
            "agreement": run_agreement,
            "training": run_training,
            "table1": run_table1,
            "table2": run_table2,
            "convert": run_convert,
            "search": search,
        },
        prog="python -m benchmarks",
        description="Measure how true and how fast the simulator is, and what agents learn on it.",
    )
