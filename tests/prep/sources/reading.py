"""What tests of sources ask of the data that a source has read."""

import numpy as np
import pytest

from jaxsim import InputError


def rows(data):
    """(user, item, rating, time) of each rating."""
    return list(data.ratings.itertuples(index=False, name=None))


def texts(data, wanted=None):
    """(row, text) of the wanted rows, or of all."""
    wanted = np.arange(len(data.ratings)) if wanted is None else np.array(wanted, np.int64)
    return list(data.reviews.texts(wanted))


def skipped(data):
    """For each file: reason -> number of lines that were left out."""
    return [file.counts for file in data.skipped]


def error_of(source, options):
    """The one line with which a source refuses its files."""
    with pytest.raises(InputError) as caught:
        source.load(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
