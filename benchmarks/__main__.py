"""The command line: `python -m benchmarks COMMAND`."""

from benchmarks.ablations.command import run_ablations
from benchmarks.agreement import run_agreement
from benchmarks.convert import run_convert
from benchmarks.departure.command import run_departure
from benchmarks.fidelity.command import run_fidelity
from benchmarks.fidelity.exposure_report import run_exposure
from benchmarks.quotes import run_quotes
from benchmarks.satiation import run_satiation
from benchmarks.search import search
from benchmarks.seeds import run_seeds
from benchmarks.statistic_model import search_statistic_model
from benchmarks.table1 import run_table1
from benchmarks.table2 import run_table2
from benchmarks.table6.command import run_table6
from benchmarks.throughput.command import run_throughput
from benchmarks.throughput.options import run_options
from benchmarks.training.command import run_training
from benchmarks.validity.command import run_validity
from benchmarks.visits.command import run_visits
from jaxsim.cli import main

if __name__ == "__main__":
    main(
        {
            "fidelity": run_fidelity,
            "exposure": run_exposure,
            "ablations": run_ablations,
            "validity": run_validity,
            "departure": run_departure,
            "visits": run_visits,
            "satiation": run_satiation,
            "statistic-model": search_statistic_model,
            "throughput": run_throughput,
            "options": run_options,
            "agreement": run_agreement,
            "training": run_training,
            "seeds": run_seeds,
            "table1": run_table1,
            "table2": run_table2,
            "table6": run_table6,
            "convert": run_convert,
            "search": search,
            "quotes": run_quotes,
        },
        prog="python -m benchmarks",
        description="Measure how realistic and how fast the simulator is, and what agents learn on it.",
    )
