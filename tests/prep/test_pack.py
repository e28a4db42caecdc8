import dataclasses
import os

import numpy as np
import pandas as pd
import pytest

import jaxsim
from jaxsim import InputError
from prep.pack import PackedContents, check_output, write_dataset


@pytest.fixture
def contents():
    arrays: dict[str, np.ndarray] = {
        "item_categories": np.zeros((2, 1), np.int32),
        "item_pos_keywords": np.array([[0], [-1]], np.int32),
        "item_neg_keywords": np.array([[-1], [0]], np.int32),
        "item_pos_embedding": np.array([[1, 0], [0, 0]], np.float32),
        "item_neg_embedding": np.array([[0, 0], [0, 1]], np.float32),
        "user_offsets": np.array([0, 2], np.int64),
        "interaction_item": np.array([0, 1], np.int32),
        "interaction_label": np.array([0, 1], np.int8),
        "interaction_rating": np.array([2, 5], np.float32),
        "interaction_time": np.array([1, 2], np.int64),
        "interaction_split": np.array([0, 0], np.int8),
    }
    return PackedContents(
        arrays=arrays,
        items=pd.DataFrame({"item_id": ["a", "b"], "name": ["Ä", "B"]}),
        users=pd.DataFrame({"user_id": ["u"]}),
        keywords=["schön"],
        categories=["c"],
        sasrec={"w": np.ones(3, np.float32)[::-1]},
        taste={"item_effect": np.zeros(2, np.float32)},
        manifest={"dataset": "pair", "sasrec": {}},
    )


def test_what_is_written_is_what_is_read(tmp_path, contents):
    write_dataset(tmp_path / "new" / "pair", contents)
    dataset = jaxsim.load_dataset(tmp_path / "new" / "pair")
    for name, array in contents.arrays.items():
        np.testing.assert_array_equal(dataset.arrays[name], array)
    assert dataset.keywords == ["schön"]
    assert dataset.items["name"].tolist() == ["Ä", "B"]
    assert dataset.manifest["format_version"] == jaxsim.dataset.FORMAT_VERSION
    folder = {path.name for path in dataset.path.iterdir()}
    assert dataset.manifest["files"].keys() == folder - {"manifest.json"}
    assert [path.name for path in dataset.path.parent.iterdir()] == ["pair"]


def test_an_exposure_model_is_written_where_there_is_one(tmp_path, contents):
    popularity = np.array([-1, -2], np.float32)
    both = dataclasses.replace(contents, exposure={"item_popularity": popularity})
    write_dataset(tmp_path / "with", both)
    write_dataset(tmp_path / "without", contents)
    dataset = jaxsim.load_dataset(tmp_path / "with")
    np.testing.assert_array_equal(dataset.exposure["item_popularity"], popularity)
    other = jaxsim.load_dataset(tmp_path / "without")
    assert other.exposure is None
    files = dict(dataset.manifest["files"])
    del files["exposure.safetensors"]
    assert files == other.manifest["files"]


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("item_categories"),
        lambda arrays: arrays.update(extra=np.zeros(1)),
        lambda arrays: arrays.update(user_offsets=np.array([0, 2], np.int32)),
        lambda arrays: arrays.update(interaction_item=np.array([[0, 1]], np.int32)),
    ],
)
def test_arrays_of_another_shape_or_type_are_not_written(tmp_path, contents, change):
    change(contents.arrays)
    with pytest.raises(ValueError, match="arrays to pack"):
        write_dataset(tmp_path / "pair", contents)
    assert not list(tmp_path.iterdir())


def test_a_dataset_that_cannot_be_moved_in_leaves_the_old_one(tmp_path, contents, monkeypatch):
    out = tmp_path / "pair"
    write_dataset(out, contents)
    old = (out / "manifest.json").read_bytes()
    rename = os.rename

    def fail_for_the_new(source, target):
        if source.name == "new":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="Input/output error"):
        write_dataset(out, contents)
    assert (out / "manifest.json").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]


def test_only_a_packed_dataset_and_nothing_else_may_be_replaced(tmp_path, contents):
    out = tmp_path / "pair"
    check_output(out)
    out.mkdir()
    check_output(out)
    write_dataset(out, contents)
    check_output(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a packed dataset"):
        check_output(out)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="not a packed dataset"):
        check_output(file)
    with pytest.raises(InputError, match="not a writable folder"):
        check_output(file / "below")
