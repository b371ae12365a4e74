"""Tools for stores: merge, take parts, pack, save what is left; a teacher that writes one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.distill import (
    SoftLabels,
    StoreConfig,
    StoreWriter,
    augmentation_seeds,
    check,
    merge,
    pack,
    salvage,
    sparse_kl,
    subset,
    top_k,
    verify,
    write,
)
from weightwise.distill.lookup import half_below

CONFIG = StoreConfig(classes=300, k=6, teacher="large")
NAMED = replace(CONFIG, keys="name")


def fill(path, keys, config=CONFIG, epoch=0, shard="0", scale=3.0):
    """Write labels of random logits that follow from epoch and place of the key."""
    generator = torch.Generator().manual_seed(epoch)
    logits = scale * torch.randn(len(keys), config.classes, generator=generator)
    indices, values = top_k(logits, config)
    with StoreWriter(path, config, epoch=epoch, shard=shard) as writer:
        writer.append(keys, augmentation_seeds(0, epoch, keys), indices, values)
    return logits


def listed(path):
    """Names of what is in a folder."""
    return sorted(one.name for one in path.iterdir())


def all_of(path, epoch, keys):
    """Everything that is stored of some keys."""
    return [column.tolist() for column in SoftLabels(path).gather(epoch, keys)]


@pytest.mark.parametrize("config", [CONFIG, NAMED], ids=["numbers", "names"])
def test_merged_stores_have_all_keys_once(tmp_path, config):
    """Two hosts' stores with images in common and an epoch that only one has."""
    keys = [f"{i}.jpg" for i in range(9)] if config.keys == "name" else list(range(9))
    fill(tmp_path / "whole", keys, config)
    parts = {"a": keys[:6], "b": keys[4:]}
    for name, part in parts.items():
        labels = SoftLabels(tmp_path / "whole").gather(0, part)
        with StoreWriter(tmp_path / name, config, epoch=0) as writer:
            writer.append(part, *labels[:3])
    fill(tmp_path / "b", keys[:2], config, epoch=5)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    assert all_of(tmp_path / "ab", 0, keys) == all_of(tmp_path / "whole", 0, keys)
    assert all_of(tmp_path / "ab", 5, keys[:2]) == all_of(tmp_path / "b", 5, keys[:2])
    report = verify(tmp_path / "ab")
    assert (report.num_images, report.num_repeated, report.problems) == ({0: 9, 5: 2}, 0, ())
    assert listed(tmp_path) == ["a", "ab", "b", "whole"]


def test_stores_that_differ_do_not_merge(tmp_path):
    """Other settings, other seeds of a key, a name that is taken: refused, and nothing is left."""
    fill(tmp_path / "a", range(3))
    fill(tmp_path / "b", range(3), replace(CONFIG, teacher="small"))
    given = replace(CONFIG, base_seed=None)
    fill(tmp_path / "c", range(3), given)
    with StoreWriter(tmp_path / "d", given, epoch=0) as writer:
        writer.append([2], [9], *top_k(torch.eye(300)[:1], CONFIG))
    with pytest.raises(ValueError, match="b: teacher: expected 'large', got 'small'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "x")
    with pytest.raises(ValueError, match="d: key: 2 of epoch 0 has another seed in"):
        merge([tmp_path / "c", tmp_path / "d"], tmp_path / "x")
    with pytest.raises(ValueError, match="b: expected a name that is free"):
        merge([tmp_path / "a"], tmp_path / "b")
    with pytest.raises(ValueError, match="sources: expected at least one store"):
        merge([], tmp_path / "x")
    assert listed(tmp_path) == ["a", "b", "c", "d"]


def test_a_subset_has_the_first_classes_of_some_images(tmp_path):
    """Keys, epochs and K can be cut down; the most probable classes stay."""
    for epoch in range(3):
        fill(tmp_path / "a", range(8), epoch=epoch)
    subset(tmp_path / "a", tmp_path / "b", keys=[7, 2], epochs=[0, 2], k=2)
    assert verify(tmp_path / "b").num_images == {0: 2, 2: 2}
    before, after = (SoftLabels(tmp_path / name).gather(2, [2, 7]) for name in "ab")
    assert after.indices.tolist() == before.indices[:, :2].tolist()
    assert after.values.tolist() == before.values[:, :2].tolist()
    assert after.seeds.tolist() == before.seeds.tolist()
    for asked, match in [
        ({"keys": [8]}, "keys: expected all in epoch 0"),
        ({"epochs": [3]}, r"epochs: expected some of \[0, 1, 2\], got \[3\]"),
        ({"k": 7}, "k: expected 1 to 6, got 7"),
    ]:
        with pytest.raises(ValueError, match=match):
            subset(tmp_path / "a", tmp_path / "c", **asked)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(
    classes=st.sampled_from([1, 2, 7, 300, 21_841, 70_000]),
    k=st.integers(1, 40),
    mass=st.sampled_from([None, 0.5, 0.95]),
    value_dtype=st.sampled_from(["float16", "float32"]),
    seed=st.integers(0, 99),
)
def test_packed_labels_keep_classes_and_round_probabilities(tmp_path_factory, classes, k, mass, value_dtype, seed):  # fmt: skip  # noqa: E501
    """Classes come back exactly, by rising number; 24 / 254 octaves are 3.4 % either way."""
    path = tmp_path_factory.mktemp("store")
    k = min(k, classes)
    config = StoreConfig(classes=classes, k=k, mass=mass, value_dtype=value_dtype)
    rng = np.random.default_rng(seed)
    edges = [0, classes - 1] if k > 1 else [classes - 1]
    rows = [rng.choice(classes, k, replace=False), rng.permutation([*edges, *range(1, k - 1)])]
    values = -np.sort(-rng.dirichlet(np.full(k + 1, 0.3), 2)[:, :k], axis=1)
    with StoreWriter(path / "a", config, epoch=0) as writer:
        writer.append([5, 3], augmentation_seeds(0, 0, [5, 3]), np.stack(rows), values)
    report = pack(path / "a", path / "b")
    plain, packed = (SoftLabels(path / name).gather(0, [3, 5]) for name in "ab")
    assert packed.seeds.tolist() == plain.seeds.tolist()
    assert packed.counts.tolist() == plain.counts.tolist()
    for row, count in enumerate(plain.counts):
        order = plain.indices[row, :count].argsort()
        assert packed.indices[row, :count].tolist() == plain.indices[row, order].tolist()
        expected = plain.values[row, order].astype(float)
        is_small = expected < 2**-23.9
        found = packed.values[row, :count].astype(float)
        # Half a step is 2^(12 / 254) - 1 = 3.33 %, and as much again when all are scaled to
        # their mass, which may be 1 % off; float16 adds a unit of 6e-8 where it is small.
        np.testing.assert_allclose(found[~is_small], expected[~is_small], rtol=0.08, atol=2e-7)
        assert (found[expected == 0] == 0).all()
        assert not packed.values[row, count:].any()
    assert verify(path / "b").problems == ()
    assert report.kl_max < 0.002


def test_floats_are_cut_to_the_half_below():
    """The largest float16 that is not larger, for all float16 and numbers between; never 0."""
    exact = np.arange(1, 0x3C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    for x in (exact, np.nextafter(exact, np.float32(2)), np.nextafter(exact, np.float32(0))):
        nearest = x.astype(np.float16)
        below = np.where(nearest > x, np.nextafter(nearest, np.float16(0)), nearest)
        below = np.maximum(below, np.float16(2**-24)).view(np.uint16)
        assert [half_below(int(word)) for word in x.view(np.int32)] == below.tolist()
    assert half_below(0) == 0


def test_packing_error_and_size_are_measured(tmp_path):
    """K = 10 of 1000: 56 bytes become 40; the error is that of dense targets made by hand."""
    config = StoreConfig(classes=1000, k=10)
    fill(tmp_path / "a", range(200), config)
    report = pack(tmp_path / "a", tmp_path / "b")
    # 16 + 10 + ceil((10 (1 + 6) + 1000 / 64) / 8) = 37 bytes in multiples of 8
    assert (report.bytes_before, report.bytes_after) == (56, 40)
    plain, packed = (dense(tmp_path / name, 200) for name in "ab")
    kl = (plain * np.log(plain / packed)).sum(axis=1)
    assert report.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert report.kl_max == pytest.approx(kl.max(), rel=1e-4)
    assert 0 < report.kl_mean < 5e-4
    pack(tmp_path / "b", tmp_path / "c", "plain")
    assert np.array_equal(dense(tmp_path / "c", 200), packed)
    values = np.array([[0.5, 0.25]])
    assert sparse_kl(values, values, np.array([2]), 9).tolist() == [0.0]


def dense(path, count):
    """Targets with all classes, one entry at a time."""
    labels = SoftLabels(path)
    found, classes = labels.gather(0, range(count)), labels.config.classes
    target = np.zeros((count, classes))
    for row in range(count):
        stored = found.values[row].astype(float)
        target[row] = max(0.0, 1 - stored.sum()) / (classes - len(stored))
        target[row, found.indices[row]] = stored
    return target / target.sum(axis=1, keepdims=True)


def test_fewer_stored_classes_are_further_from_the_teacher(tmp_path):
    """KL(teacher || stored) falls with K."""
    found = []
    for k in (2, 5, 20, 100):
        config = StoreConfig(classes=300, k=k)
        logits = fill(tmp_path / str(k), range(50), config)
        teacher = logits.double().softmax(1).numpy()
        found.append((teacher * np.log(teacher / dense(tmp_path / str(k), 50))).sum(1).mean())
    assert found == sorted(found, reverse=True)
    assert 10 * found[-1] < found[0]


@pytest.mark.parametrize("mass", [None, 0.9])
@pytest.mark.parametrize("packing", ["plain", "compact"])
def test_whole_records_of_a_damaged_store_are_saved(tmp_path, mass, packing):
    """A flipped byte costs one record, a missing end those that were in it."""
    config = replace(CONFIG, mass=mass, packing=packing)
    for epoch in range(2):
        fill(tmp_path / "a", range(9), config, epoch=epoch)
    before = all_of(tmp_path / "a", 0, range(9))
    place = int(SoftLabels(tmp_path / "a").epoch(0).shards[0].records.places[4])
    file = tmp_path / "a" / "epoch-00000" / "0.soft"
    raw = bytearray(file.read_bytes())
    raw[4096 + 8 * place + 10] ^= 4
    file.write_bytes(raw)
    cut = tmp_path / "a" / "epoch-00001" / "0.soft"
    cut.write_bytes(cut.read_bytes()[:-3])
    assert len(verify(tmp_path / "a").problems) == 2
    assert salvage(tmp_path / "a", tmp_path / "b") == 1
    assert verify(tmp_path / "b").num_images == {0: 8, 1: 8}
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    after = all_of(tmp_path / "b", 0, kept)
    if packing == "plain":
        assert after == [[column[i] for i in kept] for column in before]
    assert verify(tmp_path / "b").problems == ()


def test_a_teacher_writes_once_and_is_checked(tmp_path):
    """Stored images are not asked for again; another teacher is found out."""
    config = StoreConfig(classes=4, k=2)
    weight = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    asked, seen = [], []

    def teacher(image_B1):
        asked.append(len(image_B1))
        return image_B1 @ weight

    batches = [(range(i, i + 3), torch.arange(i, i + 3.0)[:, None] + 1) for i in (0, 3)]
    report = write(tmp_path, config, teacher, batches[:1], epoch=0)
    assert (report.num_written, report.num_stored) == (3, 0)
    report = write(tmp_path, config, teacher, batches, epoch=0, shard="1", progress=seen.append)
    assert (report.num_written, report.num_stored) == (3, 3)
    assert (asked, seen) == ([3, 3], [3, 6])
    labels = SoftLabels(tmp_path)
    found = check(labels, teacher, batches, epoch=0)
    assert (found.num_images, found.value_error, found.index_share) == (6, 0.0, 0.0)
    # Classes 0 and 2 swap places: both of two are others.
    swapped = check(labels, lambda x: x @ weight[:, [2, 1, 0, 3]], batches, epoch=0)
    assert swapped.index_share == 1.0
    assert swapped.value_error == 0.0
    # Twice the logits of image 0: values of softmax([2, 0, 1, -1]) and of softmax([4, 0, 2, -2]).
    doubled = check(labels, lambda x: 2 * x @ weight, [([0], torch.ones(1, 1))], epoch=0)
    values = [torch.softmax(s * weight[0], 0).topk(2).values.half().double() for s in (1, 2)]
    assert doubled.value_error == pytest.approx((values[0] - values[1]).abs().mean().item())
    with pytest.raises(ValueError, match="batches: expected images"):
        check(labels, teacher, [], epoch=0)
    with pytest.raises(ValueError, match="base_seed: expected a number"):
        write(tmp_path, replace(config, base_seed=None), teacher, batches, epoch=1)
