"""Soft labels in other projects' layouts: TinyViT's own directories, a pickle for each image."""

import gzip
import os
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from weightwise.distill import (
    ReinforcedSample,
    SoftLabels,
    StoreConfig,
    StoreWriter,
    augmentation_seeds,
    from_official,
    from_reinforced,
    read_reinforced,
    to_official,
    to_reinforced,
    top_k,
    write_reinforced,
)

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


@pytest.mark.parametrize("config", [CONFIG, NAMED], ids=["numbers", "names"])
def test_the_official_layout_goes_both_ways(tmp_path, config):
    """Files made by hand with struct, ranks of different size; what is written back is the same."""
    rng = np.random.default_rng(0)
    source = tmp_path / "official"
    expected, number = {}, 0
    for epoch in range(2):
        folder = source / f"logits_top6_epoch{epoch}"
        folder.mkdir(parents=True)
        for rank, count in enumerate((3, 2)):
            keys, raw = [], b""
            for _ in range(count):
                key = f"n01/{number}.JPEG" if config.keys == "name" else number
                seed, index = int(rng.integers(2**31)), rng.choice(300, 6, replace=False)
                value = -np.sort(-rng.random(6) / 6)
                raw += struct.pack("<i6h6e", seed, *index.tolist(), *value.tolist())
                keys.append(key)
                expected[epoch, key] = (seed, index.tolist(), value.astype(np.float16).tolist())
                number += 1
            (folder / f"rank{rank}-keys.txt").write_text("".join(f"{key}\n" for key in keys))
            (folder / f"rank{rank}-values.bin").write_bytes(raw)
    assert from_official(source, tmp_path / "a", replace(config, base_seed=None)) == 0
    labels = SoftLabels(tmp_path / "a", on_missing="refuse")
    for (epoch, key), (seed, index, value) in expected.items():
        found = labels.gather(epoch, [key])
        assert (found.seeds[0], found.indices[0].tolist()) == (seed, index)
        assert found.values[0].tolist() == value
    to_official(tmp_path / "a", tmp_path / "again")
    for epoch in range(2):
        folder = f"logits_top6_epoch{epoch}"
        for ending in ("keys.txt", "values.bin"):
            ranks = [(source / folder / f"rank{r}-{ending}").read_bytes() for r in range(2)]
            assert (tmp_path / "again" / folder / f"rank0-{ending}").read_bytes() == b"".join(ranks)


def test_broken_official_files_are_refused(tmp_path):
    """The file and what is wrong with it; nothing is left of the target."""
    config = replace(CONFIG, base_seed=None)
    fill(tmp_path / "a", range(4), config)
    to_official(tmp_path / "a", tmp_path / "o")
    folder = tmp_path / "o" / "logits_top6_epoch0"
    keys, values = folder / "rank0-keys.txt", folder / "rank0-values.bin"
    good_keys, good = keys.read_bytes(), values.read_bytes()
    for raw_keys, raw, match in [
        (good_keys, good[:-1], r"rank0-values\.bin: records: expected 4 of 28 bytes"),
        (good_keys[:-1], good, r"rank0-keys\.txt: keys: expected a line end"),
        (b"0\n1\n2\nx\n", good, r"rank0-values\.bin, records from 0: invalid literal"),
        (good_keys, good[:4] + b"\xff\xff" + good[6:], "indices: expected 0 to 299, got -1"),
        (good_keys, b"\xff" * 4 + good[4:], "seeds: expected 0 to 2.31 - 1, got -1"),
    ]:
        keys.write_bytes(raw_keys)
        values.write_bytes(raw)
        with pytest.raises(ValueError, match=match):
            from_official(tmp_path / "o", tmp_path / "b", config)
    keys.write_bytes(b"0\n1\n2\n2\n")
    values.write_bytes(good)
    assert from_official(tmp_path / "o", tmp_path / "b", config) == 1
    with pytest.raises(ValueError, match="logits_top6_epoch0: k: expected 5, got 6"):
        from_official(tmp_path / "o", tmp_path / "c", replace(config, k=5))
    with pytest.raises(ValueError, match="files: expected folders logits_top"):
        from_official(tmp_path / "a", tmp_path / "c", config)
    with pytest.raises(ValueError, match="base_seed, mass: expected None"):
        from_official(tmp_path / "o", tmp_path / "c", CONFIG)
    fill(tmp_path / "many", range(2), StoreConfig(classes=40_000, k=2))
    with pytest.raises(ValueError, match="classes: expected at most 32767, got 40000"):
        to_official(tmp_path / "many", tmp_path / "c")
    assert listed(tmp_path) == ["a", "b", "many", "o"]


def test_reinforced_files_go_both_ways(tmp_path):
    """Every image has a file with all its epochs; read back, labels are the same."""
    for epoch in range(2):
        fill(tmp_path / "a", ["x/1.jpg", "x/2.jpg"], NAMED, epoch=epoch)
    assert to_reinforced(tmp_path / "a", tmp_path / "r") == 2
    assert len(list((tmp_path / "r").iterdir())) == 2
    config = replace(NAMED, base_seed=None)
    assert from_reinforced(tmp_path / "r", tmp_path / "b", config) == 2
    for epoch in range(2):
        before, after = (SoftLabels(tmp_path / n).gather(epoch, ["x/2.jpg"]) for n in "ab")
        assert after.indices.tolist() == before.indices.tolist()
        assert after.values.tolist() == before.values.tolist()
        assert after.seeds.tolist() == [epoch]
        key, samples = read_reinforced(next(iter((tmp_path / "r").iterdir())))
        seed = int(augmentation_seeds(0, epoch, [key])[0])
        assert samples[epoch].params == {"seed": seed, "epoch": epoch}


@pytest.mark.parametrize("kind", ["gzip", "pickle", "torch"])
def test_reinforced_files_of_any_kind_are_read(tmp_path, kind):
    """Pairs of values and classes in any order, as a plain, compressed or torch pickle."""
    content = [7, [{"params": {"crop": (1, 2)}, "prob": ([0.1, 0.7], [4, 2])}]]
    path = tmp_path / "7.pth.tar"
    if kind == "torch":
        torch.save(content, path)
    else:
        raw = pickle.dumps(content)
        path.write_bytes(gzip.compress(raw) if kind == "gzip" else raw)
    sample = ReinforcedSample(params={"crop": (1, 2)}, probabilities=(0.7, 0.1), classes=(2, 4))
    assert read_reinforced(path) == (7, [sample])
    config = StoreConfig(classes=9, k=2, base_seed=None)
    from_reinforced(tmp_path, tmp_path / "store", config)
    assert SoftLabels(tmp_path / "store").gather(0, [7]).indices.tolist() == [[2, 4]]
    with pytest.raises(ValueError, match=r"7\.pth\.tar: prob: expected 3 classes, got 2"):
        from_reinforced(tmp_path, tmp_path / "x", replace(config, k=3))
    with pytest.raises(ValueError, match=r"7\.pth\.tar: indices: expected 0 to 3, got 2 to 4"):
        from_reinforced(tmp_path, tmp_path / "x", replace(config, classes=4))


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.parametrize("kind", ["gzip", "torch"])
def test_pickles_cannot_run_programs(tmp_path, kind):
    """A pickle that makes a folder when it is loaded is refused, and there is no folder."""
    path, made = tmp_path / "1.pth.gz", tmp_path / "made"
    content = [1, [{"params": Trap(str(made)), "prob": ([1.0], [0])}]]
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(gzip.compress(pickle.dumps(content)))
    with pytest.raises(ValueError, match=r"1\.pth\.gz: expected a pickled key"):
        read_reinforced(path)
    assert not made.exists()
    for raw in (b"", b"\x1f\x8b\x08 cut", gzip.compress(pickle.dumps(3)), b"PK\3\4zip"):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"1\.pth\.gz: expected a pickled key"):
            read_reinforced(path)
    write_reinforced(path, "k", [])
    assert read_reinforced(path) == ("k", [])
