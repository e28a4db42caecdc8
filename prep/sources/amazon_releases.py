"""The releases of the Amazon reviews of the McAuley Lab: names of files, addresses, and what to cite.

The publisher's pages name neither sizes nor digests of the files of a department, so the server is asked for the
sizes. The releases of 2014 and 2018 have 5-core files, in which each user and item has five reviews or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prep.published_files import Offer, PublishedFile

Year = Literal[2014, 2018, 2023]
PAPERS: Year = 2018
"""The release to whose page the paper refers."""

# The server of the lab, and the one before it, to which older pages refer.
SERVERS = (
    "https://mcauleylab.ucsd.edu/public_datasets/data",
    "https://datarepo.eng.ucsd.edu/mcauley_group/data",
)
# The page of 2014 refers to this copy.
SNAP = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"

TERMS = """\
Amazon reviews, release {year}, {department}: collected by the McAuley Lab, University of California San Diego.
We know of no licence that the publisher names; it asks for a citation. The texts belong to those who wrote them
and to Amazon: use them for research, do not pass them on, and read {page} first. Please cite:
  {citation}
"""


@dataclass(frozen=True)
class Release:
    """One of the three releases.

    Attributes:
        year: when it was published.
        reviews: names of its files of reviews, with {} for the department; the first is the one to download.
        metadata: name of its file of metadata.
        offer: the page where it can be downloaded.
        citation: what the publisher asks to cite.
        reviews_folder: folder of the reviews below `SERVERS`.
        metadata_folder: folder of the metadata below `SERVERS`.
        copies: addresses of folders with copies of both.
    """

    year: Year
    reviews: Sequence[str]
    metadata: str
    offer: str
    citation: str
    reviews_folder: str
    metadata_folder: str
    copies: Sequence[str] = ()

    def offer_of(self, dataset: str, department: str) -> Offer:
        """What to download for a department.

        Args:
            dataset: the name of the dataset, for messages.
            department: as in the names of the files, such as "Digital_Music".
        """
        files = []
        for name, folder in (
            (self.reviews[0], self.reviews_folder),
            (self.metadata, self.metadata_folder),
        ):
            packed = f"{name.format(department)}.gz"
            places = (*(f"{server}/{folder}" for server in SERVERS), *self.copies)
            files.append(PublishedFile(packed, tuple(f"{place}/{packed}" for place in places)))
        terms = TERMS.format(
            year=self.year, department=department, page=self.offer, citation=self.citation
        )
        return Offer(dataset, files, self.offer, terms)


RELEASES = (
    Release(
        2014,
        ("reviews_{}_5.json", "reviews_{}.json"),
        "meta_{}.json",
        "https://jmcauley.ucsd.edu/data/amazon/",
        "R. He and J. McAuley. Ups and Downs: Modeling the Visual Evolution of Fashion Trends with One-Class\n"
        "  Collaborative Filtering. WWW 2016.",
        "amazon/categoryFiles",
        "amazon/categoryFiles",
        (SNAP,),
    ),
    Release(
        2018,
        ("{}_5.json", "{}.json"),
        "meta_{}.json",
        "https://nijianmo.github.io/amazon/",
        "J. Ni, J. Li and J. McAuley. Justifying Recommendations using Distantly-Labeled Reviews and\n"
        "  Fine-Grained Aspects. EMNLP 2019.",
        "amazon_v2/categoryFilesSmall",
        "amazon_v2/metaFiles2",
    ),
    Release(
        2023,
        ("{}.jsonl",),
        "meta_{}.jsonl",
        "https://amazon-reviews-2023.github.io/",
        "Y. Hou, J. Li, Z. He, A. Yan, X. Chen and J. McAuley. Bridging Language and Items for Retrieval and\n"
        "  Recommendation. arXiv:2403.03952, 2024.",
        "amazon_2023/raw/review_categories",
        "amazon_2023/raw/meta_categories",
    ),
)


def release_of(year: Year | None) -> Release:
    """The release of a year; the paper's for None."""
    return next(release for release in RELEASES if release.year == (year or PAPERS))
