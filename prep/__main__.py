"""The command line: `python -m prep build ml-100k`, `python -m prep embed ml-100k --out FILE`."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxsim import InputError
from jaxsim.cli import main
from prep.build import BuildConfig, build_dataset
from prep.embedding import DEFAULT_ENCODER, KeywordVectors, encode, save_vectors
from prep.replies import parse_reply, read_replies
from prep.report import format_report
from prep.sources import get_source

Dataset = Annotated[str, tyro.conf.Positional]


def build(
    dataset: Dataset,
    config: Annotated[BuildConfig, tyro.conf.arg(name="")] = BuildConfig(),  # noqa: B008 (frozen)
) -> None:
    """Build a dataset for the simulator: ratings, keywords, embeddings and the statistic model.

    Args:
        dataset: name of the dataset, such as ml-100k.
        config: settings.
    """
    result = build_dataset(dataset, config)
    print(format_report(result))


def embed(
    dataset: Dataset,
    out: Path,
    replies: tyro.conf.UseAppendAction[tuple[Path, ...]] = (),
    encoder: str = DEFAULT_ENCODER,
) -> None:
    """Compute the vectors of all keywords in replies, for `build --vectors` (needs torch).

    Args:
        dataset: name of the dataset, such as ml-100k.
        out: the file to write.
        replies: files of replies, in place of those that ship with the dataset.
        encoder: name or path of a BERT.
    """
    files = replies or tuple(get_source(dataset).replies)
    parsed = [parse_reply(reply.text).keywords for path in files for reply in read_replies(path)]
    keywords = sorted({word for item in parsed for word in item.pos | item.neg})
    if not keywords:
        raise InputError(f"{', '.join(map(str, files))}: no reply with keywords")
    save_vectors(out, KeywordVectors(encoder, keywords, encode(keywords, encoder)))
    print(f"{len(keywords):,} keyword vectors of {encoder} written to {out}")


def run(args: list[str] | None = None) -> None:
    """Run the command line with `args`, by default those of the process."""
    main(
        {"build": build, "embed": embed},
        prog="python -m prep",
        description="Prepare datasets for jaxsim.",
        args=args,
    )


if __name__ == "__main__":
    run()
