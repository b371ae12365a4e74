"""Sources: keys, labels and bytes by number; shards that are cut off; splits; wrong labels."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from weightwise.images import (
    ArrayImages,
    HuggingFaceImages,
    Subset,
    TarImages,
    TarStream,
    composites,
    corrupt_labels,
    digits,
    folder_images,
    listed_images,
    split,
    stream_tar,
)
from weightwise.train.vision_images import HuggingFaceSource


def png(value, side=4):
    """Bytes of a grey image."""
    file = io.BytesIO()
    Image.new("L", (side, side), value).save(file, "PNG")
    return file.getvalue()


def rows(source):
    """Everything a source says."""
    return [(source.key(i), source.label(i), source.load(i)) for i in range(len(source))]


def write_tar(path, files, mode="w"):
    """A shard of (name, bytes)."""
    with tarfile.open(path, mode) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def shard_files(first, last):
    """Images and classes of samples."""
    return [
        file
        for i in range(first, last)
        for file in ((f"a/{i}.v1.txt", b"x"), (f"a/{i}.PNG", png(i)), (f"a/{i}.cls", b" %d\n" % i))
    ]


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ([("json", b'{"label": 3, "cls": 4, "caption": "x"}')], 3),
        ([("json", b'{"cls": 4}')], 4),
        ([("json", b'{"cls": 4}'), ("cls", b"5")], 5),
        ([("cls", b"5"), ("json", b'{"cls": 4}')], 5),
        ([("json", b'{"label": true, "cls": -1}')], None),
        ([("json", b'{"label": "cat"}')], None),
        ([("json", b"[3]")], None),
        ([("json", b"\xff{")], None),
    ],
)
def test_objects_state_classes(tmp_path, files, label):
    """By number and in a stream: ``label`` before ``cls``, the file ``cls`` before both."""
    named = [(f"a.{kind}", data) for kind, data in [("png", b"p"), *files]]
    path = write_tar(tmp_path / "0.tar", named)
    assert TarImages([path]).label(0) == label
    assert [one.label for one in stream_tar(path, [])] == [label]


def test_folders_are_classes(tmp_path):
    """In alphabetical order, folders of folders included, other files left out."""
    for name in ("cat/b.png", "cat/a.PNG", "ant/x/c.png", "cat/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "zoo").mkdir()
    source = folder_images(tmp_path)
    assert rows(source) == [
        ("ant/x/c.png", 0, b"ant/x/c.png"),
        ("cat/a.PNG", 1, b"cat/a.PNG"),
        ("cat/b.png", 1, b"cat/b.png"),
    ]
    assert source.classes == ("ant", "cat", "zoo")


def test_lists_name_files(tmp_path):
    """With numbers, with names of classes, without labels."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    file = tmp_path / "list.csv"
    for text, labels, classes in (
        ("path,label\nb.png,7\na.png,0\n", [7, 0], ()),
        ("label,path\ndog,b.png\ncat,a.png\n", [1, 0], ("cat", "dog")),
        ("path\nb.png\na.png\n", [None, None], ()),
    ):
        file.write_text(text, encoding="utf-8")
        source = listed_images(file)
        assert rows(source) == [("b.png", labels[0], b"b.png"), ("a.png", labels[1], b"a.png")]
        assert source.classes == classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na.png\n", "expected a column path, got name"),
        ("path,label\na.png,\n", "line 2: expected a path and its label"),
        ("path\n", "expected at least one image"),
        ("path\na.png\na.png\n", "expected every name once, got 'a.png' again"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, text, message):
    """The message names the line or the name."""
    file = tmp_path / "list.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        listed_images(file)


def test_missing_folders_and_files_are_refused(tmp_path):
    """One line with the path."""
    with pytest.raises(ValueError, match="nowhere: expected a folder"):
        folder_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected at least one image"):
        folder_images(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere.csv: expected a readable CSV file"):
        listed_images(tmp_path / "nowhere.csv")


def test_shards_read_alike_by_number_and_as_streams(tmp_path):
    """Keys end at the first dot; shards in order; a compressed one as a stream."""
    paths = [
        write_tar(tmp_path / "0.tar", shard_files(0, 3)),
        write_tar(tmp_path / "1.tar", [*shard_files(3, 5), ("a/9.txt", b"no image")]),
    ]
    expected = [(f"a/{i}", i, png(i)) for i in range(5)]
    assert rows(TarImages(paths)) == expected
    streamed = [(one.key, one.label, one.data) for one in TarStream(paths)]
    assert streamed == expected
    packed = write_tar(tmp_path / "2.tar.gz", shard_files(0, 2), "w:gz")
    assert [one.key for one in TarStream([packed])] == ["a/0", "a/1"]


def test_streams_share_out_shards(tmp_path):
    """Three shards, two parts: the first has two; more parts than shards are refused."""
    paths = [write_tar(tmp_path / f"{i}.tar", shard_files(i, i + 1)) for i in range(3)]
    parts = [[one.label for one in TarStream(paths, part, 2)] for part in (0, 1)]
    assert parts == [[0, 2], [1]]
    with pytest.raises(ValueError, match="num_parts: expected 1 to 3, the number of shards, got 4"):
        TarStream(paths, 0, 4)
    with pytest.raises(ValueError, match="part: expected 0 to 1, got 2"):
        TarStream(paths, 2, 2)


@pytest.mark.parametrize("blocks", [9, 11.5, 12, 12.5, 13, 13.5, 15.9, 18, 29.5, 30])
def test_cut_off_shards_give_what_is_whole(tmp_path, blocks):
    """Wherever a shard ends: all samples but the last that has begun, and a note."""
    whole = write_tar(tmp_path / "0.tar", shard_files(0, 5)).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: int(blocks * 512)])
    source = TarImages([path])
    # A sample has three files, each with a block of its header and one of its own.
    begun = int((blocks - 1) // 6) + 1
    assert rows(source) == [(f"a/{i}", i, png(i)) for i in range(begun - 1)]
    assert [note.kind for note in source.notes] == ["truncated"]
    stream = TarStream([path])
    assert [(one.key, one.label, one.data) for one in stream] == rows(source)
    assert [note.key for note in stream.notes] == [str(path)]


def test_damaged_packed_shards_end_with_a_note(tmp_path):
    """Cut in the middle of the compressed data, and nothing but junk."""
    packed = write_tar(tmp_path / "0.tar.gz", shard_files(0, 200), "w:gz")
    data = packed.read_bytes()
    for damaged in (data[: len(data) // 2], b"junk" * 500, b""):
        packed.write_bytes(damaged)
        stream = TarStream([packed])
        assert len(list(stream)) < 200
        assert len(stream.notes) == 1
    with pytest.raises(ValueError, match="expected an uncompressed tar file"):
        TarImages([packed])


def test_a_key_in_two_shards_is_refused(tmp_path):
    """A store could not tell them apart."""
    paths = [write_tar(tmp_path / f"{i}.tar", shard_files(0, 1)) for i in range(2)]
    with pytest.raises(ValueError, match="expected every name once, got 'a/0' again"):
        TarImages(paths)


def test_a_shard_that_shrank_meanwhile_cannot_be_read(tmp_path):
    """An error of the file, which the loader notes."""
    path = write_tar(tmp_path / "0.tar", shard_files(0, 2))
    source = TarImages([path])
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(OSError, match="truncated at byte 1600"):
        source.load(0)


@pytest.mark.slow
def test_hugging_face_rows_stay_encoded():
    """Bytes as they were put in; keys are row numbers; unknown columns are refused."""
    datasets = pytest.importorskip("datasets")
    cells = [{"bytes": png(i), "path": None} for i in range(3)]
    dataset = datasets.Dataset.from_dict(
        {"picture": cells, "label": [2, None, 1]},
        features=datasets.Features({"picture": datasets.Image(), "label": datasets.Value("int64")}),
    )
    source = HuggingFaceImages(dataset, image="picture")
    assert rows(source) == [("0", 2, png(0)), ("1", None, png(1)), ("2", 1, png(2))]
    assert HuggingFaceImages(dataset, "picture", None).label(0) is None
    with pytest.raises(ValueError, match="column: expected one of picture, label, got 'image'"):
        HuggingFaceImages(dataset)


@pytest.mark.slow
def test_recipes_open_hugging_face_folders(tmp_path):
    """Parts by name, whole or split; what is not there is refused with the field."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    parts = {
        name: datasets.Dataset.from_dict(
            {"image": [{"bytes": png(i), "path": None} for i in range(2)], "label": labels},
            features=features,
        )
        for name, labels in (("train", [1, 0]), ("test", [0, 1]))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    parts["test"].save_to_disk(tmp_path / "one")
    train, valid = HuggingFaceSource(name=str(tmp_path / "both"), valid="test").open()
    assert rows(train) == [("0", 1, png(0)), ("1", 0, png(1))]
    assert rows(valid) == [("0", 0, png(0)), ("1", 1, png(1))]
    train, valid = HuggingFaceSource(name=str(tmp_path / "one"), label="none").open()
    assert rows(train) == [("0", None, png(0)), ("1", None, png(1))]
    assert valid is None
    with pytest.raises(ValueError, match="split: expected one of train, test, got 'all'"):
        HuggingFaceSource(name=str(tmp_path / "both"), split="all").open()
    with pytest.raises(ValueError, match="name: expected a dataset, got"):
        HuggingFaceSource(name=str(tmp_path / "none")).open()


def numbered(count):
    """Images of one pixel."""
    return ArrayImages(
        pixels=np.zeros((count, 1, 1), dtype=np.uint8),
        labels=np.arange(count) % 10,
        keys=tuple(f"k{i}" for i in range(count)),
    )


def test_arrays_must_fit_together():
    """Types, shapes and numbers."""
    source = numbered(3)
    with pytest.raises(ValueError, match="pixels: expected uint8 of shape"):
        ArrayImages(pixels=np.zeros((3, 1, 1)), labels=source.labels, keys=source.keys)
    with pytest.raises(ValueError, match="expected as many images, labels and keys, got 3, 3, 2"):
        ArrayImages(pixels=source.pixels, labels=source.labels, keys=("a", "b"))


def test_splits_depend_on_keys_alone():
    """A sample keeps its side when others are added; shares are close."""
    for fraction in (0.0, 0.2, 1.0):
        train, test = split(numbered(2000), fraction)
        assert len(test) == pytest.approx(2000 * fraction, abs=90)  # five deviations
        assert len(train) + len(test) == 2000
        smaller = split(numbered(100), fraction)[1]
        assert [smaller.key(i) for i in range(len(smaller))] == [
            test.key(i) for i in range(len(smaller))
        ]
    assert test.label(13) == 3
    assert test.load(0).shape == (1, 1)


def test_a_share_of_the_labels_is_wrong():
    """Exactly 30 % differ, to every other class, the same ones for the same seed."""
    source = numbered(1000)
    wrong = corrupt_labels(source, 0.3, 10, seed=5)
    before = np.array([source.label(i) for i in range(1000)])
    after = np.array([wrong.label(i) for i in range(1000)])
    assert (before != after).sum() == 300
    shift = (after - before)[before != after] % 10
    assert np.bincount(shift, minlength=10)[1:].min() > 10  # 33 expected, deviation 5.4
    assert np.array_equal(after, corrupt_labels(source, 0.3, 10, seed=5).labels)
    assert not np.array_equal(after, corrupt_labels(source, 0.3, 10, seed=6).labels)
    assert wrong.key(7) == "k7"


def test_wrong_shares_and_labels_are_refused():
    """The message names the argument."""
    with pytest.raises(ValueError, match="share: expected 0 to 1, got 2"):
        corrupt_labels(numbered(5), 2, 10, 0)
    with pytest.raises(ValueError, match="num_classes: expected at least 2"):
        corrupt_labels(numbered(5), 0.5, 1, 0)
    with pytest.raises(ValueError, match="source: expected labels of 0 to 1 for all"):
        corrupt_labels(numbered(5), 0.5, 2, 0)
    with pytest.raises(ValueError, match="test_fraction: expected 0 to 1"):
        split(numbered(5), -1)
    with pytest.raises(ValueError, match="labels: expected 1 labels, got 2"):
        Subset(source=numbered(3), numbers=np.arange(1), labels=np.arange(2))


@pytest.mark.slow
def test_digits_are_enlarged_and_split():
    """All 1797, once, about a fifth in the test part; corners of the original stay in place."""
    datasets = pytest.importorskip("sklearn.datasets")
    train, test = digits("train"), digits("test", size=40)
    assert len(train) + len(test) == 1797
    assert not set(train.keys) & set(test.keys)
    assert len(test) == pytest.approx(359, abs=85)
    assert train.pixels.shape[1:] == (32, 32)
    number = int(test.keys[0].removeprefix("digit-"))
    found = datasets.load_digits()
    assert test.labels[0] == found.target[number]
    small = test.pixels[0].reshape(8, 5, 8, 5).mean((1, 3)) / 255 * 16
    assert np.abs(small - found.images[number]).mean() < 1


@pytest.mark.slow
def test_composites_show_two_digits():
    """A hundred classes, equally often; halves are digits of the part, at their class."""
    pytest.importorskip("sklearn")
    source = composites("test", 300, seed=1, size=32)
    assert np.bincount(source.labels).tolist() == [3] * 100
    known = {image.tobytes(): label for image, label in zip(
        digits("test", size=16).pixels, digits("test", size=16).labels, strict=True
    )}  # fmt: skip
    for image, label in zip(source.pixels[:40], source.labels[:40], strict=True):
        halves = (image[:, :16], image[:, 16:])
        shown = [
            {known.get(half[top : top + 16].tobytes()) for top in range(17)} - {None}
            for half in halves
        ]
        assert label // 10 in shown[0]
        assert label % 10 in shown[1]
    again = composites("test", 300, seed=1, size=32)
    assert np.array_equal(again.pixels, source.pixels)
    assert not np.array_equal(composites("test", 300, seed=2).labels, source.labels)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: digits("all"), "part: expected train or test, got 'all'"),
        (lambda: digits("test", size=4), "size: expected 8 to 4096 pixels, got 4"),
        (lambda: composites("test", 0, 0), "count: expected at least 1, got 0"),
        (lambda: composites("test", 1, 0, size=33), "size: expected an even number, got 33"),
    ],
)
def test_wrong_tasks_are_refused(build, message):
    """The message names the argument."""
    with pytest.raises(ValueError, match=message):
        build()
