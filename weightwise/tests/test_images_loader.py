"""Batches: the same bits for any number of workers and processes; broken samples; fingerprints."""

import hashlib
import io
import itertools
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from weightwise.images import (
    CLIP_MEAN,
    ArrayImages,
    Augmentation,
    BatchMaker,
    Decoding,
    EvalTransform,
    ImageLoader,
    LoaderConfig,
    Mix,
    RandAugment,
    TarStream,
    TrainTransform,
    View,
    canary,
    fingerprint,
    folder_images,
    sample_seed,
    sample_seeds,
    stream_batches,
)
from weightwise.images.ops import OPERATIONS, Operation

SMALL = TrainTransform(views=(View(size=8),))


def numbered(count):
    """Image i has the number i in its key, its label and its pixels."""
    rng = np.random.default_rng(0)
    return ArrayImages(
        pixels=rng.integers(0, 256, (count, 10, 12, 3), dtype=np.uint8),
        labels=np.arange(count),
        keys=tuple(f"k{i}" for i in range(count)),
    )


def loader(count=21, mix=None, transform=SMALL, **settings):
    """A loader of numbered images in batches of 4."""
    return ImageLoader(
        numbered(count), transform, LoaderConfig(**{"batch_size": 4, **settings}), mix=mix
    )


def content(batches):
    """What each key became; and its seed."""
    return {
        key: (int(seed), view.numpy().tobytes())
        for batch in batches
        for key, seed, view in zip(batch.keys, batch.seeds, batch.views[0], strict=True)
    }


def digest(batches):
    """Everything in the batches, in order."""
    found = hashlib.sha256()
    for batch in batches:
        found.update(repr((batch.step, batch.keys, batch.labels.tolist())).encode())
        tensors = [*batch.views, batch.seeds, batch.numbers]
        if batch.mixing is not None:
            tensors += [batch.mixing.lam, batch.mixing.partner]
        for tensor in tensors:
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_workers_change_nothing():
    """None, one and two of them; mixed and not; the global generators stay where they are."""
    for mix in (None, Mix()):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        found = {digest(loader(mix=mix, num_workers=n).epoch(2)) for n in (0, 1, 2)}
        assert len(found) == 1
        assert torch.equal(before, torch.get_rng_state())


def test_every_sample_comes_once_and_the_last_batch_is_kept():
    """Twenty-one samples in fours: five batches and one of one; epochs differ in order."""
    ours = loader()
    batches = list(ours.epoch(0))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 1]
    assert ours.num_steps == 6
    keys = [key for batch in batches for key in batch.keys]
    assert sorted(keys) == sorted(numbered(21).keys)
    assert [key for batch in ours.epoch(1) for key in batch.keys] != keys
    plain = [n for b in loader(is_shuffled=False).epoch(0) for n in b.numbers.tolist()]
    assert plain == list(range(21))
    assert all(int(n) == int(label) for b in batches for n, label in zip(b.numbers, b.labels))  # noqa: B905


def test_seeds_are_those_of_base_epoch_and_key():
    """By the function, and different in every epoch; another function may be given."""
    for epoch in (0, 5):
        for batch in loader(base_seed=9).epoch(epoch):
            assert batch.seeds.tolist() == [sample_seed(9, epoch, key) for key in batch.keys]
    ours = ImageLoader(
        numbered(3),
        SMALL,
        LoaderConfig(),
        seeds_of=lambda base, epoch, keys: [base + epoch] * len(keys),
    )
    assert next(ours.epoch(4)).seeds.tolist() == [4, 4, 4]


@settings(max_examples=50)
@given(
    count=st.integers(1, 60), num_processes=st.integers(1, 5), is_mixed=st.booleans(),
    seed=st.integers(0, 10**9),
)  # fmt: skip
def test_processes_share_out_the_epoch(count, num_processes, is_mixed, seed):
    """Every sample once; partners in the order of one process stay partners."""
    mix = Mix() if is_mixed else None
    whole = loader(count, mix, base_seed=seed).order(3).tolist()
    loaders = [
        loader(count, mix, base_seed=seed, process=p, num_processes=num_processes)
        for p in range(num_processes)
    ]
    parts = [one.order(3).tolist() for one in loaders]
    assert [one.num_steps for one in loaders] == [-(-len(part) // 4) for part in parts]
    assert sorted(itertools.chain(*parts)) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 + is_mixed
    if is_mixed:
        pairs = {tuple(whole[i : i + 2]) for i in range(0, count, 2)}
        assert {tuple(part[i : i + 2]) for part in parts for i in range(0, len(part), 2)} == pairs


@pytest.mark.parametrize("mix", [None, Mix()])
def test_the_number_of_processes_and_the_batch_size_change_no_image(mix):
    """Content by key is the same for one process, three, and other batches."""
    whole = content(loader(mix=mix).epoch(1))
    parts = {}
    for process in range(3):
        parts |= content(loader(mix=mix, process=process, num_processes=3, batch_size=6).epoch(1))
    assert parts == whole


def test_runs_go_on_at_any_step():
    """From step 3 on, what a whole epoch has from there on."""
    whole = list(loader(mix=Mix()).epoch(4))
    assert digest(loader(mix=Mix()).epoch(4, start_step=3)) == digest(whole[3:])
    assert list(loader().epoch(4, start_step=6)) == []


def test_broken_samples_are_left_out_and_their_partners_stay(tmp_path):
    """One file cut off, one removed meanwhile: noted, listed, all others unchanged and unmixed."""
    (tmp_path / "class").mkdir()
    for i in range(8):
        Image.fromarray(numbered(8).pixels[i]).save(tmp_path / "class" / f"{i}.png")
    config = LoaderConfig(batch_size=4, is_shuffled=False)
    source = folder_images(tmp_path)
    before = list(ImageLoader(source, SMALL, config, mix=Mix()).epoch(0))
    whole = tmp_path / "class" / "1.png"
    whole.write_bytes(whole.read_bytes()[:100])
    (tmp_path / "class" / "6.png").unlink()
    ours = ImageLoader(source, SMALL, config, mix=Mix())
    after = list(ours.epoch(0))
    assert [batch.numbers.tolist() for batch in after] == [[0, 2, 3], [4, 5, 7]]
    assert [batch.mixing.partner.tolist() for batch in after] == [[0, 2, 1], [1, 0, 2]]
    assert torch.equal(after[0].views[0][1:], before[0].views[0][2:])
    assert [(n.key, n.kind) for n in ours.report.skipped] == [
        ("class/1.png", "truncated"), ("class/6.png", "unreadable")
    ]  # fmt: skip
    assert ours.report.summary == "6 images read, 2 left out, truncated 1, unreadable 1"


def test_a_batch_of_broken_samples_is_empty():
    """No image at all is still a batch, of shape (0, 3, S, S)."""
    maker = BatchMaker(
        transform=SMALL, mix=Mix(), decoding=Decoding(), seeds_of=sample_seeds, base_seed=0
    )
    batch = maker.make(0, 0, [(0, "a", None, b"junk"), (1, "b", 3, b"")])
    assert len(batch) == 0
    assert batch.views[0].shape == (0, 3, 8, 8)
    assert len(batch.notes) == 2


def test_streams_give_the_same_images_as_the_loader(tmp_path):
    """A shard from beginning to end: key and seed decide; labels that are missing are -1."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i in range(5):
            file = io.BytesIO()
            Image.fromarray(numbered(5).pixels[i]).save(file, "PNG")
            member = tarfile.TarInfo(f"k{i}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
    maker = BatchMaker(
        transform=SMALL, mix=None, decoding=Decoding(), seeds_of=sample_seeds, base_seed=0
    )
    stream = TarStream([tmp_path / "0.tar"])
    batches = list(stream_batches(stream, maker, 2, epoch=7))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert content(batches) == content(loader(5).epoch(7))
    assert batches[0].labels.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        next(stream_batches(stream, maker, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"process": 2, "num_processes": 2}, "process: expected 0 to 1, got 2"),
        ({"num_workers": -1}, "num_workers: expected at least 0, got -1"),
        ({"batch_size": 3}, "batch_size: expected an even number to mix pairs, got 3"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    """The message names the field."""
    with pytest.raises(ValueError, match=message):
        loader(mix=Mix(), **settings)


def test_a_fingerprint_names_what_decides_over_pixels():
    """Settings, libraries, canary; 9 and 9.0 are the same setting."""
    found = fingerprint(SMALL)
    assert found == fingerprint(
        replace(SMALL, augmentation=Augmentation(rand_augment=RandAugment(magnitude=9)))
    )
    assert found.pillow == Image.__version__
    assert found.numpy == np.__version__
    assert "jp" in found.decoder
    assert len(found.canary) == len(found.digest) == 64
    newer = replace(found, pillow="99")
    assert newer.digest == found.digest
    assert newer.differences(found) == [f"pillow: expected 99, got {found.pillow}"]


@pytest.mark.parametrize(
    ("other", "path"),
    [
        (TrainTransform(views=(View(size=9),)), "transform.views"),
        (TrainTransform(views=(View(size=8, mean=CLIP_MEAN),)), "transform.views"),
        (replace(SMALL, augmentation=Augmentation(flip_prob=0.4)), "augmentation.flip_prob"),
        (replace(SMALL, augmentation=Augmentation(rand_augment=None)), "rand_augment"),
        (replace(SMALL, augmentation=Augmentation(fill=(0, 0, 0))), "augmentation.fill"),
        (EvalTransform(views=SMALL.views), "transform.kind"),
    ],
)
def test_other_transforms_have_other_fingerprints(other, path):
    """Digest and canary differ, and the setting is named."""
    ours, theirs = fingerprint(SMALL), fingerprint(other)
    assert ours.digest != theirs.digest
    assert ours.canary != theirs.canary
    assert any(path in line for line in ours.differences(theirs))


@pytest.mark.parametrize("name", [*OPERATIONS])
def test_the_canary_sees_every_operation(name, monkeypatch):
    """One that does one thing more changes it."""
    before = canary(SMALL)
    op = OPERATIONS[name]

    def brighter(image, argument, fill):
        return op.apply(image, argument, fill).point(lambda v: v ^ 1)

    monkeypatch.setitem(OPERATIONS, name, Operation(op.argument, brighter))
    assert canary(SMALL) != before


def test_the_canary_sees_the_decoder():
    """Where JPEG is not decoded, half of it is missing."""
    transform = EvalTransform(views=SMALL.views)
    assert canary(transform, Decoding(formats=("PNG",))) != canary(transform)
