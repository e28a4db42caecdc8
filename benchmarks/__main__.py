"""The command line: `python -m benchmarks COMMAND`."""

from benchmarks.ablations.command import run_ablations
from benchmarks.agreement import run_agreement
from benchmarks.convert import run_convert
from benchmarks.departure.command import run_departure
from benchmarks.evaluation_time import run_evaluation
from benchmarks.fidelity.command import run_fidelity
from benchmarks.fidelity.exposure_report import run_exposure
from benchmarks.ope.command import run_ope
from benchmarks.page_speed import run_page
from benchmarks.quotes import run_quotes
from benchmarks.rivals.command import run_rivals
from benchmarks.satiation import run_satiation
from benchmarks.scaling.command import run_scaling
from benchmarks.search import search
from benchmarks.statistic_model import search_statistic_model
from benchmarks.suite.command import run_all, run_report
from benchmarks.table1 import run_table1
from benchmarks.table2 import run_table2
from benchmarks.table6.command import run_table6
from benchmarks.throughput.command import run_throughput
from benchmarks.throughput.options import run_options
from benchmarks.training.command import run_training
from benchmarks.training.seed_order import run_seed_order
from benchmarks.training.seeds import run_seeds
from benchmarks.training.to_oracle import run_to_oracle
from benchmarks.validity.command import run_validity
from benchmarks.visits.command import run_visits
from jaxsim.cli import Commands, main

COMMANDS: Commands = {
    "all": run_all,
    "report": run_report,
    "fidelity": run_fidelity,
    "exposure": run_exposure,
    "ablations": run_ablations,
    "validity": run_validity,
    "ope": run_ope,
    "departure": run_departure,
    "visits": run_visits,
    "satiation": run_satiation,
    "statistic-model": search_statistic_model,
    "throughput": run_throughput,
    "options": run_options,
    "agreement": run_agreement,
    "training": run_training,
    "seeds": run_seeds,
    "seed-order": run_seed_order,
    "to-oracle": run_to_oracle,
    "evaluation": run_evaluation,
    "page": run_page,
    "table1": run_table1,
    "table2": run_table2,
    "table6": run_table6,
    "rivals": run_rivals,
    "scaling": run_scaling,
    "convert": run_convert,
    "search": search,
    "quotes": run_quotes,
}

if __name__ == "__main__":
    main(
        COMMANDS,
        prog="python -m benchmarks",
        description="Measure how realistic and how fast the simulator is, and what agents learn on it.",
    )
