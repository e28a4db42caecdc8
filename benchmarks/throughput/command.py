"""`python -m benchmarks throughput`."""

from pathlib import Path

from benchmarks.hardware import use_cores
from benchmarks.output import check_json, check_plot, write_json, write_plot
from benchmarks.throughput.measurement import default_batches, measure
from benchmarks.throughput.plot import plot_throughput
from benchmarks.throughput.report import format_report
from benchmarks.throughput.semantics import measure_semantics
from benchmarks.throughput.vote_cost import measure_votes
from jaxsim import InputError, load_dataset
from jaxsim.catalogue import TABLE_BUDGET_BYTES, CatalogueKind
from jaxsim.factory import PrefixKind


def run_throughput(
    dataset: str = "ml-100k",
    batches: tuple[int, ...] = (),
    repeats: int = 5,
    votes: bool = True,
    semantics: bool = True,
    catalogue: CatalogueKind = "auto",
    prefixes: PrefixKind = "auto",
    table_budget: int = TABLE_BUDGET_BYTES,
    devices: int = 0,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Measure steps per second against batch size, beside what the device could do at best.

    Example:
        --batches 1024 16384

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        batches: numbers of sessions stepped at once. Without any, powers of 4 from 256, to 16,384 on a CPU and
            otherwise as far as memory goes.
        repeats: timed runs of each figure; the median counts, quartiles stand beside it.
        votes: also measure each vote alone, by history length and catalogue size; takes minutes.
        semantics: also measure every semantics of a dataset with a taste model, in turn.
        catalogue: of `jaxsim.make`: how item pairs are compared.
        prefixes: of `jaxsim.make`: whether the encoded initial histories of f_sta are stored.
        table_budget: of `jaxsim.make`: bytes for tables that are computed in advance.
        devices: how many devices the sessions are split over; 0 takes one, or on a CPU one for each core.
        json: also write the result here.
        plot: also draw it here (PNG, or the format that the name ends in).
    """
    check_json(json)
    check_plot(plot)
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: give a whole number from 1")
    if any(batch < 1 for batch in batches):
        raise InputError(f"--batches {min(batches)}: give whole numbers from 1")
    if devices < 0:
        raise InputError(f"--devices {devices}: give a whole number from 0")
    packed = load_dataset(dataset)
    devices = use_cores(devices)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    settings = {"catalogue": catalogue, "prefixes": prefixes, "table_budget": table_budget}
    result = measure(packed, batches or default_batches(), repeats, settings, devices)
    if semantics and packed.taste is not None:
        print("measuring every semantics in turn ...", flush=True)
        sizes = tuple(row["batch"] for row in result["rows"])
        copy = result["measured"]["copy_bytes_per_second"]
        result["semantics"] = measure_semantics(packed, sizes, repeats, settings, copy, devices)
    if votes:
        print("measuring each vote alone; this takes minutes, --no-votes skips it ...", flush=True)
        result["votes"] = measure_votes(repeats, table_budget)
    print(format_report(result))
    write_json(json, result)
    if plot is not None:
        write_plot(plot, plot_throughput(result))
