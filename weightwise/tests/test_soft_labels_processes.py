"""Soft labels of several processes: written at once, killed, resumed, and replayed elsewhere."""

import json
import resource
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from weightwise.distill import SoftLabels, StoreConfig, StoreWriter, augmentation_seeds, verify

WORKER = Path(__file__).with_name("soft_labels_worker.py")
CONFIG = StoreConfig(classes=30, k=3)


def batch(keys, epoch=0):
    """Labels that follow from the key."""
    index_B = np.asarray(keys) % 10
    indices = np.stack([index_B, index_B + 10, index_B + 20], axis=1)
    values = np.tile(np.array([0.5, 0.25, 0.125], np.float16), (len(keys), 1))
    return keys, augmentation_seeds(0, epoch, keys), indices, values


def labels_of(path, keys):
    """Everything that is stored of some keys."""
    found = SoftLabels(path).gather(0, keys)
    return [column.tolist() for column in found]


@pytest.mark.slow
def test_two_writers_one_killed_resumed_and_replayed_elsewhere(tmp_path, capsys):
    """Nothing that was written is lost or comes twice; another process sees the same images."""
    worker = runpy.run_path(str(WORKER))
    total, store, whole = worker["NUM_KEYS"], tmp_path / "store", tmp_path / "whole"
    half = total // 4  # of what a process writes
    with started(store, 0) as first, started(store, 1) as second:
        for rank in (first, second):
            while int(rank.stdout.readline()) < half:
                pass
        # Both are in the middle, with their files open.
        assert len(verify(store).open_files) == 2
        first.kill()
        assert first.wait() == -signal.SIGKILL
        second.stdin.write("go on\n")
        second.stdin.flush()
        while int(second.stdout.readline()) < total // 2:
            pass
        resume(worker, store)
        write_alone(worker, whole)
        shuffled = np.random.default_rng(0).permutation(total)
        assert labels_of(store, shuffled) == labels_of(whole, shuffled)
        some = shuffled[:200].tolist()
        seen = second.communicate(json.dumps(some))[0]
    worker["replay"](whole, some)
    assert capsys.readouterr().out == seen
    assert len(seen) == 65


def resume(worker, store):
    """Write what the killed process of rank 0 has not."""
    total = worker["NUM_KEYS"]
    with (store / "epoch-00000" / "rank0.soft").open("ab") as file:
        file.write(b"torn off in the middle")
    assert verify(store).num_images == {0: total // 4 + total // 2}
    keys = np.arange(total)
    with StoreWriter(store, worker["CONFIG"], epoch=0, shard="rank0") as writer:
        missing = keys[writer.missing(keys)]
        assert missing.tolist() == list(range(total // 2, total, 2))
        worker["append"](writer, missing)
    report = verify(store)
    assert (report.num_images, report.num_repeated) == ({0: total}, 0)
    assert report.problems == report.open_files == ()


def write_alone(worker, store):
    """The same labels by one process that nothing happens to."""
    with StoreWriter(store, worker["CONFIG"], epoch=0) as writer:
        worker["append"](writer, np.arange(worker["NUM_KEYS"]))


def started(*arguments):
    """A process of the worker."""
    return subprocess.Popen(
        [sys.executable, str(WORKER), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_torn_end_costs_only_the_unfinished_record(tmp_path):
    """Cut anywhere, a file that was not closed keeps its whole records: 16 + 12 become 32 bytes."""
    with StoreWriter(tmp_path / "a", CONFIG, epoch=0) as writer:
        writer.append(*batch(range(6)))
        raw = writer.path.read_bytes()
    assert len(raw) == 4096 + 6 * 32
    expected = labels_of(tmp_path / "a", range(6))
    for cut in range(4096 + 3 * 32, len(raw) + 1):
        store = tmp_path / str(cut)
        file = store / "epoch-00000" / "0.soft"
        file.parent.mkdir(parents=True)
        file.write_bytes(raw[:cut])
        kept = (cut - 4096) // 32
        report = verify(store)
        assert (report.num_images, report.problems) == ({0: kept}, ())
        assert report.open_files == (str(file),)
        if cut % 13 == 0:
            with StoreWriter(store, CONFIG, epoch=0) as writer:
                assert writer.missing(range(6)).tolist() == list(range(kept, 6))
                writer.append(*batch(range(6)))
                assert (writer.num_records, writer.num_dropped) == (6, kept)
            assert labels_of(store, range(6)) == expected
            # Resumed, the file has the bytes of one that was never interrupted.
            assert file.read_bytes() == (tmp_path / "a/epoch-00000/0.soft").read_bytes()


def test_damage_in_the_middle_is_no_torn_end(tmp_path):
    """A bad record with good ones behind it is not cut off together with these."""
    with StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        writer.append(*batch(range(6)))
        raw = bytearray(writer.path.read_bytes())
    raw[4096 + 2 * 32 + 20] ^= 1
    writer.path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"0\.soft: checksum: the record at byte 4160 is damaged"):
        StoreWriter(tmp_path, CONFIG, epoch=0)
    assert writer.path.read_bytes() == raw


def test_a_closed_file_can_be_continued(tmp_path):
    """By a second writer; one that adds nothing changes nothing; index and seal follow."""
    with StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        writer.append(*batch(range(3)))
    before = writer.path.read_bytes()
    labels_of(tmp_path, range(3))
    with StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        assert writer.missing(range(5)).tolist() == [3, 4]
    assert writer.path.read_bytes() == before
    with StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        writer.append(*batch([4, 3]))
        assert verify(tmp_path).open_files == (str(writer.path),)
    assert labels_of(tmp_path, [4, 0])[1] == [[4, 14, 24], [0, 10, 20]]
    assert verify(tmp_path).open_files == ()


def test_two_writers_of_one_file_are_refused(tmp_path):
    """The second one is told to take another name; the first one goes on."""
    with StoreWriter(tmp_path, CONFIG, epoch=0, shard="a") as writer:
        with pytest.raises(ValueError, match=r"a\.soft: shard: expected one that no other process"):
            StoreWriter(tmp_path, CONFIG, epoch=0, shard="a")
        writer.append(*batch(range(3)))
    assert labels_of(tmp_path, [2])[1] == [[2, 12, 22]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_the_middle_closes_the_file(tmp_path, error):
    """Interrupts and failing teachers leave a store that is whole."""
    with pytest.raises(error), StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        writer.append(*batch(range(3)))
        raise error
    assert verify(tmp_path).open_files == ()
    assert len(labels_of(tmp_path, range(3))[0]) == 3


def test_a_full_disk_loses_nothing_that_was_written(tmp_path):
    """A limit of the file's size stands for the disk: the batch that does not fit is taken back."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = StoreWriter(tmp_path, CONFIG, epoch=0)
    writer.append(*batch(range(10)))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 + 15 * 32 + 7, old[1]))
        with pytest.raises(OSError, match="File too large"):
            writer.append(*batch(range(10, 20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    report = verify(tmp_path)
    assert (report.num_images, report.open_files, report.problems) == ({0: 10}, (), ())
    with StoreWriter(tmp_path, CONFIG, epoch=0) as writer:
        assert writer.missing(range(20)).tolist() == list(range(10, 20))
        writer.append(*batch(range(10, 20)))
    assert verify(tmp_path).num_images == {0: 20}


def test_names_survive_a_kill(tmp_path):
    """A name torn off is written again; the others stay, and epochs share them."""
    config = StoreConfig(classes=30, k=3, keys="name")
    names = ["a/1.jpg", "a/2.jpg", "ü.png"]
    for epoch in range(2):
        with StoreWriter(tmp_path, config, epoch=epoch) as writer:
            _, _, indices, values = batch(range(2))
            writer.append(names[:2], augmentation_seeds(0, epoch, names[:2]), indices, values)
    file = tmp_path / "names-0.txt"
    assert file.read_text() == "a/1.jpg\na/2.jpg\n"
    with file.open("ab") as torn:
        torn.write("ü".encode()[:1])
    assert SoftLabels(tmp_path).names().keys() == set(SoftLabels(tmp_path).epoch(0).ids())
    with StoreWriter(tmp_path, config, epoch=0) as writer:
        writer.append(names[2:], augmentation_seeds(0, 0, names[2:]), indices[:1], values[:1])
    assert file.read_text(encoding="utf-8") == "a/1.jpg\na/2.jpg\nü.png\n"
    assert verify(tmp_path).problems == ()
    file.unlink()
    assert "names: expected one for every key" in verify(tmp_path).problems[0]
    file.write_bytes(b"\xff\n")
    assert "names-0.txt: names: expected UTF-8" in verify(tmp_path).problems[0]
