"""Soft labels on disk: bit-exact round trips, seeds, epochs, and refusal of what is not right."""

import pickle
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.distill import (
    SoftLabels,
    StoreConfig,
    StoredEpochsRepeatWarning,
    StoreWriter,
    as_tensors,
    augmentation_seeds,
    top_k,
    verify,
)

CONFIG = StoreConfig(classes=50, k=4, teacher="large", fingerprint="crop", canary="c0ffee")
MASK = 2**64 - 1


def some_labels(config, count, seed=0):
    """Random classes and falling probabilities, as a teacher would give them."""
    rng = np.random.default_rng(seed)
    indices = rng.random((count, config.classes)).argsort(axis=1)[:, : config.k]
    values = -np.sort(-rng.dirichlet(np.full(config.k + 1, 0.5), count)[:, : config.k], axis=1)
    return indices.astype(config.index_dtype), values.astype(config.number_dtype)


def fill(path, config=CONFIG, keys=range(20), epoch=0, shard="0", seed=0):
    """Write labels of some keys; returns them."""
    indices, values = some_labels(config, len(keys), seed)
    seeds = augmentation_seeds(config.base_seed or 0, epoch, keys)
    with StoreWriter(path, config, epoch=epoch, shard=shard) as writer:
        assert writer.append(keys, seeds, indices, values) == len(keys)
    return seeds, indices, values


def mix(x):
    """SplitMix64 in Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    classes=st.sampled_from([1, 2, 50, 32_767, 32_768, 65_535, 65_536, 100_000]),
    k=st.integers(1, 12),
    keys=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=40, unique=True),
    value_dtype=st.sampled_from(["float16", "float32"]),
    named=st.booleans(),
    data=st.data(),
)
def test_labels_come_back_bit_for_bit(tmp_path_factory, classes, k, keys, value_dtype, named, data):
    """Any classes, K, type, kind and order of keys: what is read is what was written."""
    config = StoreConfig(
        classes=classes, k=min(k, classes), value_dtype=value_dtype,
        keys="name" if named else "index", base_seed=None,
    )  # fmt: skip
    keys = [f"n{key}.jpg" for key in keys] if named else keys
    indices, values = some_labels(replace(config, classes=min(classes, 500)), len(keys))
    indices = indices.astype(np.int64) + (classes - min(classes, 500))
    seeds = data.draw(st.lists(st.integers(0, 2**31 - 1), min_size=len(keys), max_size=len(keys)))
    path = tmp_path_factory.mktemp("store")
    with StoreWriter(path, config, epoch=3) as writer:
        writer.append(keys, seeds, indices, values)
    order = data.draw(st.permutations(range(len(keys))))
    labels = SoftLabels(path)
    found = labels.gather(3, [keys[i] for i in order])
    assert found.indices.dtype == config.index_dtype
    assert found.seeds.tolist() == [seeds[i] for i in order]
    assert np.array_equal(found.indices, indices[order])
    assert found.values.tobytes() == values[order].tobytes()
    assert found.counts.tolist() == [config.k] * len(keys)
    assert verify(path).problems == ()


@pytest.mark.parametrize(("classes", "name"), [(32_767, "int16"), (32_768, "uint16"), (65_535, "uint16"), (65_536, "uint32")])  # fmt: skip  # noqa: E501
def test_classes_take_the_smallest_type(classes, name):
    """Class numbers reach C - 1: 32,766 in 15 bits, 65,534 in 16."""
    assert StoreConfig(classes=classes, k=1).index_dtype == name


def test_layout_is_as_documented(tmp_path):
    """A file read with numpy alone: head, seal, description, records, checksum."""
    seeds, indices, values = fill(tmp_path)
    raw = (tmp_path / "epoch-00000" / "0.soft").read_bytes()
    magic, version, size, crc = struct.unpack_from("<8sIII", raw)
    assert (magic, version, crc) == (b"WWSOFT\r\n", 1, zlib.crc32(raw[64 : 64 + size]))
    # 4 + 4 + 8 + 4 (2 + 2) = 32 bytes, a multiple of 8
    assert struct.unpack_from("<QQ", raw, 32) == (20, 4096 + 20 * 32)
    record = np.dtype([("check", "<u4"), ("seed", "<i4"), ("key", "<i8"), ("index", "<i2", 4), ("value", "<f2", 4)])  # fmt: skip  # noqa: E501
    rows = np.frombuffer(raw, record, offset=4096)
    assert np.array_equal(rows["key"], np.arange(20))
    assert np.array_equal(rows["seed"], seeds)
    assert np.array_equal(rows["index"], indices)
    assert np.array_equal(rows["value"], values)
    words = np.frombuffer(raw, "<u4", offset=4096)[:8].tolist()
    total = mix(0) + sum(mix(i) * words[i] for i in range(1, 8))
    assert words[0] == (total & MASK) >> 32


def test_seeds_are_a_hash_of_base_epoch_and_key():
    """SplitMix64 in Python's integers; order and company of a key do not matter."""
    keys = [0, 1, 2**40, 2**63 - 1]
    found = augmentation_seeds(5, 7, keys)
    assert found.tolist() == [mix(mix(mix(5) ^ 7) ^ key) >> 33 for key in keys]
    assert augmentation_seeds(5, 7, keys[::-1]).tolist() == found.tolist()[::-1]
    names = ["a", "b/c.jpg", "ü"]
    assert augmentation_seeds(5, 7, names)[1] == augmentation_seeds(5, 7, names[1:])[0]
    many = augmentation_seeds(0, 0, np.arange(100_000))
    # Uniform in [0, 2^31): the mean of 1e5 lies within 5 standard errors, 0.0046, of one half.
    assert abs(many.mean() / 2**31 - 0.5) < 0.0046
    assert min(many) >= 0
    # Birthdays: 1e10 / 2^32 = 2.3 pairs are expected.
    assert len(np.unique(many)) > 99_980


@pytest.mark.parametrize("keys", [torch.tensor([3, 1]), np.array([3, 1], np.uint8), (3, 1), [3, 1]])
def test_keys_may_be_any_integers(tmp_path, keys):
    """Tensors, arrays of any type, lists."""
    _, indices, _ = fill(tmp_path)
    assert np.array_equal(SoftLabels(tmp_path).gather(0, keys).indices, indices[[3, 1]])


def test_top_k_is_the_softmax_rounded():
    """Probabilities in falling order; underflowing ones still come in the order of logits."""
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [0.0, -50.0, -40.0, 100.0]])
    indices, values = top_k(logits, StoreConfig(classes=4, k=3))
    assert indices.tolist() == [[1, 3, 2], [3, 0, 2]]
    expected = logits.softmax(1).gather(1, torch.from_numpy(indices.astype(np.int64))).half()
    assert np.array_equal(values, expected.numpy())
    raw = top_k(logits, StoreConfig(classes=4, k=4, kind="logits", value_dtype="float32"))
    assert raw[1].tolist() == [[3.0, 2.0, 1.0, 0.0], [100.0, 0.0, -40.0, -50.0]]
    with pytest.raises(ValueError, match=r"logits: expected shape \(B, 5\), got \(2, 4\)"):
        top_k(logits, StoreConfig(classes=5, k=3))
    with pytest.raises(ValueError, match="logits: expected finite numbers"):
        top_k(logits / 0, StoreConfig(classes=4, k=3))


def test_all_classes_stored_are_the_softmax(tmp_path):
    """K = C: the dense output of the teacher up to rounding of float16, 2^-11."""
    config = StoreConfig(classes=6, k=6)
    logits = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    with StoreWriter(tmp_path, config, epoch=0) as writer:
        writer.append(range(9), augmentation_seeds(0, 0, range(9)), *top_k(logits, config))
    index_BK, value_BK, stored_BK = as_tensors(SoftLabels(tmp_path).gather(0, range(9)))
    assert stored_BK is None
    dense_BC = torch.zeros(9, 6).scatter(1, index_BK, value_BK)
    torch.testing.assert_close(dense_BC, logits.softmax(1), rtol=2**-11, atol=1e-7)


def test_mass_stores_only_what_is_needed(tmp_path):
    """0.6 + 0.3 reach 0.85; 0.9 alone does; 0.4 + 0.2 + 0.1 do not, so all K = 3 are stored."""
    config = StoreConfig(classes=9, k=3, mass=0.85)
    values = np.array([[0.6, 0.3, 0.05], [0.9, 0.05, 0.01], [0.4, 0.2, 0.1]])
    indices = np.array([[5, 2, 7], [1, 0, 2], [8, 7, 6]])
    with StoreWriter(tmp_path, config, epoch=0) as writer:
        writer.append(range(3), augmentation_seeds(0, 0, range(3)), indices, values)
        size = writer.path.stat().st_size
    found = SoftLabels(tmp_path).gather(0, [2, 1, 0])
    assert found.counts.tolist() == [3, 1, 2]
    assert found.indices.tolist() == [[8, 7, 6], [1, 0, 0], [5, 2, 0]]
    assert np.array_equal(found.values[2], np.array([0.6, 0.3, 0], np.float16))
    # 20 bytes and 4 for each class, in multiples of 8: 28, 24, 32 bytes become 32, 24, 32.
    assert size == 4096 + 32 + 24 + 32
    assert as_tensors(found)[2].tolist() == [[True] * 3, [True, False, False], [True, True, False]]


def test_missing_epochs_and_images_come_from_others(tmp_path):
    """Epochs 0 and 2 are stored, 2 without image 4: epoch 1 is the second stored one."""
    first = fill(tmp_path, keys=range(5), epoch=0)
    second = fill(tmp_path, keys=range(4), epoch=2, seed=1)
    labels = SoftLabels(tmp_path)
    assert labels.epochs == [0, 2]
    with pytest.warns(StoredEpochsRepeatWarning, match="epoch 1 is not stored"):
        found = labels.gather(1, [0, 1])
    assert np.array_equal(found.values, second[2][[0, 1]])
    assert np.array_equal(found.seeds, augmentation_seeds(0, 2, [0, 1]))
    assert np.array_equal(labels.gather(4, [3]).values, first[2][[3]])  # warned once
    with pytest.warns(StoredEpochsRepeatWarning, match="epoch 2 does not have all images"):
        found = SoftLabels(tmp_path).gather(2, [1, 4, 0])
    assert np.array_equal(found.indices[[0, 2]], second[1][[1, 0]])
    assert np.array_equal(found.indices[1], first[1][4])
    assert found.seeds[1] == first[0][4]
    assert labels.contains(2, [3, 4]).tolist() == [True, False]
    assert labels.contains(1, [3]).tolist() == [False]
    strict = SoftLabels(tmp_path, on_missing="refuse")
    with pytest.raises(ValueError, match="epoch: expected one of 0, 2, got 1"):
        strict.gather(1, [0])
    with pytest.raises(
        ValueError, match="expected all 2 in epoch 2, 1 are not stored, the first is 4"
    ):
        strict.gather(2, [1, 4])
    with pytest.raises(ValueError, match="in any epoch, 1 are not stored, the first is 99"):
        labels.gather(0, [99])


def test_duplicates_are_dropped_and_counted(tmp_path):
    """Padding samplers repeat images, within a batch, a file and between files."""
    config = replace(CONFIG, base_seed=None)
    indices, values = some_labels(config, 4)
    with StoreWriter(tmp_path, config, epoch=0, shard="a") as writer:
        assert writer.append([1, 2, 1, 3], [5, 6, 5, 7], indices, values) == 3
        assert writer.append([3], [7], indices[:1], values[:1]) == 0
        assert (writer.num_records, writer.num_dropped) == (3, 2)
        # Opened at the same time, "b" cannot know of what "a" writes.
        with StoreWriter(tmp_path, config, epoch=0, shard="b") as other:
            assert other.missing([1, 2, 4]).tolist() == [2]
            other.append([4], [8], indices[:1], values[:1])
    again = tmp_path / "epoch-00000" / "c.soft"
    again.write_bytes((tmp_path / "epoch-00000" / "a.soft").read_bytes())
    report = verify(tmp_path)
    assert (report.num_images, report.num_repeated, report.problems) == ({0: 4}, 3, ())
    assert sorted(SoftLabels(tmp_path).epoch(0).ids()) == [1, 2, 3, 4]


def test_a_key_with_two_seeds_is_refused(tmp_path):
    """Two augmentations cannot both be the image's one of this epoch."""
    config = replace(CONFIG, base_seed=None)
    indices, values = some_labels(config, 1)
    for shard, seed in (("b", 4), ("a", 3)):
        (tmp_path / shard).mkdir()
        with StoreWriter(tmp_path / shard, config, epoch=0, shard=shard) as writer:
            writer.append([17], [seed], indices, values)
    other = tmp_path / "a" / "epoch-00000" / "b.soft"
    other.write_bytes((tmp_path / "b" / "epoch-00000" / "b.soft").read_bytes())
    with pytest.raises(
        ValueError, match=r"b\.soft: key: 17 with seed 4 is already in a\.soft with seed 3"
    ):
        SoftLabels(tmp_path / "a").gather(0, [17])


def test_other_augmentations_and_shapes_are_refused(tmp_path):
    """Each field that the reader expects is named with the file."""
    fill(tmp_path)
    assert SoftLabels(tmp_path, fingerprint="crop", canary="c0ffee", k=4).config == CONFIG
    for name, value in {"fingerprint": "flip", "canary": "bad", "k": 5, "classes": 51, "base_seed": 1}.items():  # fmt: skip  # noqa: E501
        with pytest.raises(ValueError, match=rf"0\.soft: {name}: expected {value!r}, got"):
            SoftLabels(tmp_path, **{name: value})
    for name, value in {"k": 5, "classes": 51, "canary": "bad", "teacher": "small"}.items():
        with pytest.raises(ValueError, match=rf"0\.soft: {name}: expected {value!r}, got"):
            StoreWriter(tmp_path, replace(CONFIG, **{name: value}), epoch=0)
    # Another file of the same epoch, written by a process with other settings
    (tmp_path / "x").mkdir()
    fill(tmp_path / "x", replace(CONFIG, canary="bad"), keys=[77], shard="z")
    (tmp_path / "x/epoch-00000/z.soft").rename(tmp_path / "epoch-00000/z.soft")
    with pytest.raises(ValueError, match=r"z\.soft: canary: expected 'c0ffee', got 'bad'"):
        SoftLabels(tmp_path).gather(0, [0])


@pytest.mark.parametrize("path", ["missing", "."])
def test_an_empty_store_is_refused(tmp_path, path):
    """Neither a folder without files nor no folder at all is a store."""
    with pytest.raises(ValueError, match="files: expected a store"):
        SoftLabels(tmp_path / path)


def test_damaged_files_are_refused(tmp_path):
    """Truncated, another version, a flipped bit in head, seal and any record: file and field."""
    fill(tmp_path)
    file = tmp_path / "epoch-00000" / "0.soft"
    SoftLabels(tmp_path).epoch(0)  # leaves an index, so that damage is found by reading
    whole = file.read_bytes()

    def refused(raw, match):
        file.write_bytes(raw)
        with pytest.raises(ValueError, match=match):
            SoftLabels(tmp_path).gather(0, list(range(20)))

    def flipped(at):
        return whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]

    refused(whole[:-1], r"0\.soft: records: expected 20 in 4736 bytes, got a file of 4735 bytes")
    refused(whole[:-32], r"0\.soft: records: expected 20 in 4736 bytes, got a file of 4704 bytes")
    refused(whole + b"12345678", "got a file of 4744 bytes")
    refused(whole[:100], r"0\.soft: header: expected 4096 bytes, got 100")
    refused(whole[:8] + b"\2" + whole[9:], r"0\.soft: version: expected 1, got 2")
    refused(b"PK" + whole[2:], r"0\.soft: header: expected b'WWSOFT")
    refused(flipped(70), r"0\.soft: header: expected the checksum")
    refused(flipped(33), r"0\.soft: seal: expected the checksum")
    for at in (4096 + 32 * 7, 4096 + 32 * 7 + 5, 4096 + 32 * 7 + 31):
        refused(flipped(at), "checksum: the record of key 7 is damaged")
        assert (
            "0.soft: checksum: the record at byte 4320 is damaged" in verify(tmp_path).problems[0]
        )
    # In the key itself: it is not found under its number any more.
    refused(flipped(4096 + 32 * 7 + 8), "1 are not stored, the first is 7")
    file.write_bytes(whole)
    assert verify(tmp_path).problems == ()


def test_a_damaged_index_is_made_again_or_found_out(tmp_path):
    """No index can make the reader look outside of files."""
    seeds, _, _ = fill(tmp_path, keys=range(300))
    index = tmp_path / "epoch-00000" / "index"
    SoftLabels(tmp_path).epoch(0)
    whole = index.read_bytes()
    for raw in (b"", whole[:4200], b"x" * len(whole), whole[:70] + b"\0" + whole[71:]):
        index.write_bytes(raw)
        assert np.array_equal(SoftLabels(tmp_path).gather(0, range(300)).seeds, seeds)
        assert index.read_bytes() == whole
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.bytes(len(whole) - 4096)
        index.write_bytes(whole[:4096] + noise)
        with pytest.raises(ValueError, match=r"damaged|not stored"):
            SoftLabels(tmp_path).gather(0, range(300))


def test_an_index_of_other_files_is_not_used(tmp_path):
    """The index belongs to the contents of files, not to their names or sizes."""
    fill(tmp_path, keys=range(5))
    SoftLabels(tmp_path).epoch(0)
    (tmp_path / "epoch-00000" / "0.soft").unlink()
    seeds, _, _ = fill(tmp_path, keys=range(5, 10))
    assert np.array_equal(SoftLabels(tmp_path).gather(0, range(5, 10)).seeds, seeds)


def test_labels_out_of_range_are_refused(tmp_path):
    """One line with field and range; nothing has been written then."""
    indices, values = some_labels(CONFIG, 2)
    seeds = augmentation_seeds(0, 0, [0, 1])
    with StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        for wrong, match in [
            (([0, -1], seeds, indices, values), "keys: expected numbers from 0"),
            ((["a", "b"], seeds, indices, values), "keys: expected numbers, as the store has them"),
            (
                ([0, 1], seeds + 1, indices, values),
                r"seeds: expected augmentation_seeds\(0, 0, keys",
            ),
            (([0, 1], seeds[:1], indices, values), "seeds: expected 2 integers"),
            (
                ([0, 1], seeds, indices[:, :3], values),
                r"indices: expected integers of shape \(2, 4\)",
            ),
            (([0, 1], seeds, indices + 50, values), "indices: expected 0 to 49"),
            (([0, 1], seeds, indices * 0, values), "indices: expected different classes in row 0"),
            (([0, 1], seeds, indices, values[:1]), r"values: expected floats of shape \(2, 4\)"),
            (([0, 1], seeds, indices, -values), "values: expected probabilities"),
            (([0, 1], seeds, indices, values + 1), "values: expected probabilities"),
            (([0, 1], seeds, indices, values * np.nan), "values: expected finite"),
            (([0, 1], seeds, indices, values, [1, 2]), "counts: expected 4 to 4"),
        ]:
            with pytest.raises(ValueError, match=match):
                writer.append(*wrong)
        assert writer.num_records == 0
        assert writer.append([0, 1], seeds, indices, values) == 2
    with pytest.raises(ValueError, match="expected an open writer"):
        writer.append([2], augmentation_seeds(0, 0, [2]), indices[:1], values[:1])


@pytest.mark.parametrize(
    ("field", "value"),
    [("classes", 0), ("k", 51), ("k", 0), ("kind", "log"), ("keys", "path"), ("mass", 1.5),
     ("value_dtype", "int8"), ("packing", "zip"), ("base_seed", -1), ("epochs", 0),
     ("teacher", "x" * 1001)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field, value):
    """The message names the field."""
    with pytest.raises(ValueError, match=rf"{field}: expected"):
        replace(CONFIG, **{field: value})


def test_writers_refuse_names_and_epochs_out_of_range(tmp_path):
    """A shard is a file name; a planned number of epochs is kept."""
    with pytest.raises(ValueError, match="shard: expected letters"):
        StoreWriter(tmp_path, CONFIG, epoch=0, shard="../x")
    with pytest.raises(ValueError, match="epoch: expected 0 to 2, got 3"):
        StoreWriter(tmp_path, replace(CONFIG, epochs=3), epoch=3)
    assert list(tmp_path.iterdir()) == []


def test_a_store_can_be_sent_to_workers(tmp_path):
    """Pickled, it is opened again on the other side, with what it expects."""
    seeds, _, _ = fill(tmp_path)
    labels = pickle.loads(pickle.dumps(SoftLabels(tmp_path, canary="c0ffee")))  # noqa: S301
    assert np.array_equal(labels.gather(0, range(20)).seeds, seeds)


def test_same_labels_make_the_same_bytes(tmp_path):
    """Nothing of time, process or machine is in a store."""
    for name in ("a", "b"):
        fill(tmp_path / name)
        SoftLabels(tmp_path / name).epoch(0)
    for file in ("0.soft", "index"):
        first, second = (tmp_path / name / "epoch-00000" / file for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
