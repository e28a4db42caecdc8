"""A packed dataset as a repository of the hub, and back: with a folder in place of the hub."""

import chex
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

import jaxsim
from jaxsim import InputError
from prep.hub import CARD, card, export_hub
from tests.factory import write_pack


@pytest.fixture
def pack(dataset, tmp_path):
    return write_pack(dataset, tmp_path / "pack")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that is a folder: what was uploaded can be downloaded."""
    asked = []

    def snapshot(repository, **options):
        asked.append((repository, options["repo_type"], options["revision"]))
        folder = tmp_path / "hub" / repository
        if not folder.is_dir():
            raise LocalEntryNotFoundError("nothing there")
        return str(folder)

    class Api:
        def create_repo(self, repository, repo_type, exist_ok):
            assert (repo_type, exist_ok) == ("dataset", True)
            (tmp_path / "hub" / repository).mkdir(parents=True)

        def upload_folder(self, repo_id, folder_path, allow_patterns, **_):
            for pattern in allow_patterns:
                for path in folder_path.glob(pattern):
                    (tmp_path / "hub" / repo_id / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return asked


def test_what_is_exported_is_what_is_loaded(dataset, pack, hub, tmp_path):
    out = export_hub(str(pack), tmp_path / "out", "cc-by-4.0", "me/films")
    assert {path.name for path in out.iterdir()} == {*(x.name for x in pack.iterdir()), CARD}
    loaded = jaxsim.load_dataset("hf:me/films@v1")
    chex.assert_trees_all_equal(loaded.arrays, dataset.arrays)
    assert hub == [("me/films", "dataset", "v1")]
    text = (out / CARD).read_text("utf-8")
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert 'load_dataset("hf:me/films")' in text


def test_the_card_says_what_may_be_done(dataset):
    text = card(dataset, "other", None)
    assert "The terms of the ratings' publisher apply." in text
    manifest = {**dataset.manifest, "dataset": "ml-100k-100-users"}
    films = card(type(dataset)(**{**vars(dataset), "manifest": manifest}), "other", None)
    assert "may not be redistributed without permission" in films


def test_bad_input_is_one_line_and_writes_nothing(pack, hub, tmp_path):
    out = tmp_path / "out"
    for push, licence, message in (
        ("me", "other", "--push me: give OWNER/NAME"),
        ("me/films", None, "with --licence"),
    ):
        with pytest.raises(InputError, match=message):
            export_hub(str(pack), out, licence, push)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(InputError, match="exists; give a new folder"):
        export_hub(str(pack), out, None, None)


def test_what_is_not_on_the_hub_is_one_line(hub, monkeypatch):
    with pytest.raises(InputError, match="hf:me/none: cannot be downloaded from the hub: nothing"):
        jaxsim.load_dataset("hf:me/none")
    with pytest.raises(InputError, match="dataset films: give OWNER/NAME"):
        jaxsim.load_dataset("hf:films")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r'pip install "jaxsim-recsys\[hub\]"'):
        jaxsim.load_dataset("hf:me/films")
    assert issubclass(RepositoryNotFoundError, huggingface_hub.errors.HfHubHTTPError)
