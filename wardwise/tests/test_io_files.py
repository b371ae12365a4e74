"""Files as such: which reader, what is no text, nothing half-written, nothing but InputError."""

import errno
import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wardwise.io import (
    InputError,
    files,
    read_instance,
    read_json,
    read_plan,
    read_solomon,
    read_vrplib,
    write_json,
    write_vrplib,
)

SOLOMON = b"""tiny
VEHICLE
NUMBER CAPACITY
2 10
CUSTOMER
CUST NO. XCOORD. YCOORD. DEMAND READY TIME DUE DATE SERVICE TIME AVAIL. TIME
0 0 0 0 0 100 0 0
1 3 4 5 10 50 2 0
2 -6 8.5 5.5 0 60 2 0
"""


@pytest.fixture
def instance(tmp_path):
    """A small instance that every format can hold."""
    path = tmp_path / "source.txt"
    path.write_bytes(SOLOMON)
    return read_solomon(path)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.JSON", "a.dat"])
def test_json_is_recognised(instance, tmp_path, name):
    """By its first brace or its extension."""
    write_json(instance, tmp_path / name)
    assert read_instance(tmp_path / name) == read_json(tmp_path / name) == instance


@pytest.mark.parametrize("name", ["a.txt", "a", "a.vrp"])
def test_vrplib_is_recognised(instance, tmp_path, name):
    """By its first keyword or its extension."""
    write_vrplib(instance, tmp_path / name)
    assert read_instance(tmp_path / name) == read_vrplib(tmp_path / name) == instance


@pytest.mark.parametrize(
    ("name", "message"), [("a.json", "column 2: expected JSON"), ("a.vrp", "expected a known keyw")]
)
def test_extension_settles_the_format(tmp_path, name, message):
    """A Solomon file under a foreign extension is judged as what it claims to be."""
    (tmp_path / name).write_bytes(SOLOMON)
    with pytest.raises(InputError, match=message):
        read_instance(tmp_path / name)


@pytest.mark.parametrize("reader", [read_instance, read_json, read_solomon, read_vrplib, read_plan])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": expected a readable file, got: No such file or directory"),
        (b"", ": expected some text, got an empty file"),
        (b" \r\n\t\n", ": expected some text, got an empty file"),
        (b"one\ntwo\xfe\n", ":2: expected UTF-8 text, got byte 0xfe"),
        (SOLOMON.decode().encode("utf-16"), ":1: expected UTF-8 text, got byte 0xff"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, reader, content, message):
    """Every reader says the same of missing, empty and binary files."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}{message}')}$"):
        reader(path)


def test_folder_is_refused(tmp_path):
    """A folder is not a file."""
    with pytest.raises(InputError, match="expected a readable file, got: Is a directory"):
        read_instance(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", "surrogate\udcff"])
def test_hostile_name_stays_on_one_line(name):
    """Whatever the file is called, the message can be printed."""
    with pytest.raises(InputError) as error:
        read_instance(f"/absent/{name}")
    assert str(error.value).isprintable()


def test_null_in_name_is_refused():
    """No file can be called so."""
    with pytest.raises(InputError, match="expected a file name, got: embedded null"):
        read_instance("a\0b")


def test_file_without_end_is_refused(tmp_path, monkeypatch):
    """Reading stops at the limit, as for a device that never ends."""
    monkeypatch.setattr(files, "MAX_BYTES", len(SOLOMON) - 1)
    (tmp_path / "long").write_bytes(SOLOMON)
    with pytest.raises(InputError, match=f"expected at most {len(SOLOMON) - 1} bytes, got more"):
        read_instance(tmp_path / "long")


@pytest.mark.parametrize(
    ("stop", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_failed_write_leaves_the_old_file(instance, tmp_path, monkeypatch, stop, seen):
    """A full disk or Ctrl-C leaves the old content and no draft."""

    def fail(descriptor):
        raise stop

    path = tmp_path / "plan.json"
    path.write_text("old")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(seen) as error:
        write_json(instance, path)
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before
    if seen is OSError:
        assert error.value.filename == str(path)


def test_missing_folder_is_named(instance, tmp_path):
    """The error speaks of the file that was asked for, not of the draft."""
    path = tmp_path / "absent" / "plan.json"
    with pytest.raises(FileNotFoundError) as error:
        write_json(instance, path)
    assert error.value.filename == str(path)


def test_link_stays_a_link(instance, tmp_path):
    """Writing through a link replaces the file it points to; rights are the usual ones."""
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_json(instance, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "real.json") == instance
    assert (tmp_path / "real.json").stat().st_mode == (tmp_path / "source.txt").stat().st_mode


WORD = re.compile(rb'[-0-9.e]+|"[^"]*"|\w+')
TOKENS = [
    *(b"nan", b"inf", b"-1", b"1e999", b"1e12", b"1e-200", b"9" * 400, b"0x10", b"1_0", b"-0.0"),
    *(b"null", b"true", b'"x"', b"[", b"{", b"]", b"}", b":", b"EOF", b"", b"\\ud800"),
    *(b"\x00", b"\xff", b"\n", "٣".encode(), "\u2028".encode()),
]


@st.composite
def damage(draw):
    """Up to four words replaced, up to three bytes changed, perhaps the end cut off."""
    words = draw(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(TOKENS)), max_size=4))
    bytes_ = draw(st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=1)), max_size=3))
    return words, bytes_, draw(st.one_of(st.none(), st.floats(0, 1)))


def damaged(content, words, bytes_, end):
    """Apply drawn damage; places are fractions of the file."""
    for place, token in words:
        found = list(WORD.finditer(content))
        if found:
            word = found[int(place * (len(found) - 1))]
            content = content[: word.start()] + token + content[word.end() :]
    for place, byte in bytes_:
        at = int(place * len(content))
        content = content[:at] + byte + content[at + 1 :]
    return content if end is None else content[: int(end * len(content))]


@pytest.mark.parametrize("suffix", ["txt", "vrp", "json"])
@settings(deadline=None)
@given(damage())
@example(([], [], None))
def test_damaged_file_is_read_or_refused(tmp_path_factory, suffix, damage):
    """Whatever happens to a file, the answer is an instance or one printable line."""
    folder = tmp_path_factory.mktemp("damage")
    source, path = folder / "source.txt", folder / f"file.{suffix}"
    source.write_bytes(SOLOMON)
    if suffix == "txt":
        path.write_bytes(SOLOMON)
    else:
        writer = write_vrplib if suffix == "vrp" else write_json
        writer(read_solomon(source), path)
    path.write_bytes(damaged(path.read_bytes(), *damage))
    try:
        instance = read_instance(path)
    except InputError as error:
        assert str(error).isprintable()
        assert str(error).startswith(f"{path}:")
    else:
        assert instance.requests or suffix == "json"


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(tmp_path_factory, content):
    """Bytes without any meaning never raise anything but InputError."""
    path = tmp_path_factory.mktemp("noise") / "file"
    path.write_bytes(content)
    for reader in (read_instance, read_json, read_plan, read_vrplib):
        with pytest.raises(InputError):
            reader(path)
