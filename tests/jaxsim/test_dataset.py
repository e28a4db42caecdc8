"""Reading a packed dataset: what comes back, and one clear line for everything that may be wrong with it."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxsim
from jaxsim import InputError
from tests.factory import random_dataset, sign_pack, write_pack


@pytest.fixture
def pack(tmp_path, dataset):
    return write_pack(dataset, tmp_path / "invented")


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        jaxsim.load_dataset(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit_manifest(pack, **changes) -> None:
    path = pack / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_packed_is_read(pack, dataset):
    loaded = jaxsim.load_dataset(pack)
    for name, array in dataset.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.arrays[name], array)
    assert loaded.sasrec.keys() == dataset.sasrec.keys()
    assert loaded.items["item_id"].tolist() == dataset.items["item_id"].tolist()
    assert (loaded.name, loaded.num_items, loaded.num_users) == ("invented", 40, 23)
    assert loaded.keywords == dataset.keywords
    env, params = jaxsim.make(loaded, history_length=8, session_capacity=12)
    assert env.num_items == params.catalogue.num_items == 40


def test_datasets_are_found_by_name(tmp_path, monkeypatch, dataset):
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path))
    write_pack(dataset, jaxsim.dataset.dataset_path("mine"))
    assert jaxsim.load_dataset("mine").num_items == 40


def test_unknown_names_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path))
    message = refusal("ml-100kk")
    assert "'ml-100kk'" in message
    assert "python -m prep build ml-100kk" in message
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


FILES = ["arrays.safetensors", "sasrec.safetensors", "items.parquet", "users.parquet",
         "keywords.json", "categories.json"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_noticed(pack, name):
    content = bytearray((pack / name).read_bytes())
    content[len(content) // 2] ^= 1
    (pack / name).write_bytes(content)
    message = refusal(pack)
    assert name in message
    assert "damaged" in message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(pack, name):
    (pack / name).unlink()
    message = refusal(pack)
    assert name in message
    assert "missing" in message


@pytest.mark.parametrize("name", FILES)
def test_every_file_must_be_in_the_manifest(pack, name, dataset):
    (pack / name).unlink()
    sign_pack(pack, dataset.manifest)
    assert name in refusal(pack)


def test_a_missing_manifest_is_noticed(pack):
    (pack / "manifest.json").unlink()
    assert "manifest.json" in refusal(pack)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(pack, version):
    edit_manifest(pack, format_version=version)
    message = refusal(pack)
    assert "manifest.json" in message
    assert f"format_version {version}" in message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"text"', '{"format_version": 1}'])
def test_a_manifest_that_is_none_is_refused(pack, content):
    (pack / "manifest.json").write_text(content)
    assert "manifest.json" in refusal(pack)


@pytest.mark.parametrize(
    "files", [[], "files", None, 3,
              FILES]
)  # fmt: skip
def test_a_manifest_without_digests_is_refused(pack, files):
    edit_manifest(pack, files=files)
    assert "manifest.json" in refusal(pack)


@pytest.mark.parametrize("entry", ["dataset", "sasrec"])
def test_a_manifest_must_name_the_dataset_and_its_model(pack, entry):
    path = pack / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[entry]
    path.write_text(json.dumps(manifest))
    assert "manifest.json" in refusal(pack)


def changed(name: str, index, value):
    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda a: a.pop("interaction_time"), "interaction_time"),
        (lambda a: a.update(interaction_item=a["interaction_item"].astype(np.int64)),
         "interaction_item"),
        (lambda a: a.update(interaction_label=a["interaction_label"][:, None]),
         "interaction_label"),
        (lambda a: a.update(item_pos_embedding=a["item_pos_embedding"].astype(np.float64)),
         "item_pos_embedding"),
        (changed("interaction_item", 3, 40), "interaction_item"),
        (changed("interaction_item", 3, -1), "interaction_item"),
        (changed("interaction_label", 0, 2), "interaction_label"),
        (changed("interaction_label", 0, -1), "interaction_label"),
        (changed("interaction_split", 0, 3), "interaction_split"),
        (changed("item_categories", (0, 0), 99), "item_categories"),
        (changed("item_pos_keywords", (0, 0), 99), "item_pos_keywords"),
        (changed("item_neg_keywords", (5, 0), -2), "item_neg_keywords"),
        (changed("item_neg_embedding", (5, 0), np.nan), "embedding"),
        (changed("user_offsets", 1, -1), "user_offsets"),
        (changed("user_offsets", -1, 3), "user_offsets"),
        (changed("user_offsets", 0, 1), "user_offsets"),
        (lambda a: a.update(user_offsets=a["user_offsets"][:0]), "user_offsets"),
        (lambda a: a.update(user_offsets=a["user_offsets"][[0, -1]]), "users.parquet"),
        (lambda a: a.update(item_pos_keywords=a["item_pos_keywords"][:-1]), "item_pos_keywords"),
        (lambda a: a.update(interaction_time=a["interaction_time"][:-1]), "interaction_time"),
    ],
)  # fmt: skip
def test_inconsistent_arrays_are_refused(pack, dataset, spoil, name):
    """With the right digest, as a faulty writer would leave them."""
    arrays = dict(dataset.arrays)
    spoil(arrays)
    save_file(
        {key: np.ascontiguousarray(a) for key, a in arrays.items()}, pack / "arrays.safetensors"
    )
    sign_pack(pack, dataset.manifest)
    message = refusal(pack)
    assert name in message
    assert str(pack) in message


def test_a_file_of_another_kind_is_refused(pack, dataset):
    (pack / "arrays.safetensors").write_text("not tensors")
    sign_pack(pack, dataset.manifest)
    assert "arrays.safetensors" in refusal(pack)


def test_weights_of_another_dataset_are_refused(pack, dataset):
    save_file(random_dataset(0, num_items=30).sasrec, pack / "sasrec.safetensors")
    sign_pack(pack, dataset.manifest)
    with pytest.raises(InputError, match=r"sasrec\.safetensors"):
        jaxsim.make(jaxsim.load_dataset(pack), history_length=8, session_capacity=12)


def test_session_users_are_those_with_five_interactions(dataset):
    counts = np.diff(dataset.arrays["user_offsets"])
    everyone = dataset.session_users("all")
    np.testing.assert_array_equal(everyone, np.flatnonzero(counts >= 5))
    assert everyone.dtype == np.int32
    held_out = dataset.session_users("held_out")
    np.testing.assert_array_equal(held_out, everyone[everyone % 10 == 9])
    np.testing.assert_array_equal(dataset.session_users("train"), everyone[everyone % 10 != 9])
    users = dataset.interaction_user()
    np.testing.assert_array_equal(np.bincount(users), counts)
    assert (np.diff(users) >= 0).all()
