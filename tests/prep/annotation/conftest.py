import pytest

from prep.annotation.store import ReplyStore


@pytest.fixture
def path(tmp_path):
    """Where the store of a test is."""
    return tmp_path / "replies.sqlite"


@pytest.fixture
def store(path):
    """An open, empty store."""
    with ReplyStore(path) as opened:
        yield opened
