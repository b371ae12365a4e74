"""Broken, huge and odd files: decoded or left out, counted and listed, never an end of the run."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from weightwise.images import Decoding, Note, Report, decode
from weightwise.images.fingerprints import computed_pixels

PIXELS = computed_pixels()


def encoded(image, form="PNG", **options):
    """Bytes of a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def rgb():
    """A colourful image of 96 x 80."""
    return Image.fromarray(PIXELS)


def kinds(data, config=None):
    """Mode and size of what comes out, kinds of notes."""
    image, notes = decode("key", data, config or Decoding())
    return (None if image is None else (image.mode, image.size)), [note.kind for note in notes]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_plain_files_give_no_notes(form):
    """Every format tried by default."""
    assert kinds(encoded(rgb(), form)) == (("RGB", (96, 80)), [])
    assert kinds(encoded(rgb().convert("L"), "PNG")) == (("RGB", (96, 80)), [])


def test_pixels_are_those_of_the_file():
    """Lossless formats, arrays and images."""
    for data in (encoded(rgb()), PIXELS, rgb()):
        image, _ = decode("key", data, Decoding())
        assert np.array_equal(np.asarray(image), PIXELS)
    image, _ = decode("key", PIXELS[..., 0], Decoding())
    assert np.array_equal(np.asarray(image), np.repeat(PIXELS[..., :1], 3, axis=2))


def test_odd_modes_become_rgb_and_are_counted():
    """CMYK, palettes with and without transparency, alpha, bilevel."""
    palette = rgb().quantize(16)
    for image, form, kind in (
        (rgb().convert("CMYK"), "JPEG", ["cmyk"]),
        (palette, "PNG", ["palette"]),
        (rgb().convert("RGBA"), "PNG", ["alpha"]),
        (rgb().convert("LA"), "PNG", ["alpha"]),
        (rgb().convert("1"), "PNG", []),
    ):
        assert kinds(encoded(image, form)) == (("RGB", (96, 80)), kind)
    see_through = encoded(palette, "PNG", transparency=bytes(range(16)))
    assert kinds(see_through) == (("RGB", (96, 80)), ["palette"])
    image, _ = decode("key", encoded(palette), Decoding())
    assert np.array_equal(np.asarray(image), np.asarray(palette.convert("RGB")))


def test_sixteen_bits_keep_their_upper_half():
    """0, 255, 256, 32768 and 65535 are 0, 0, 1, 128 and 255."""
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        image, notes = decode("key", encoded(Image.fromarray(values), form), Decoding())
        assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
        assert [note.kind for note in notes] == ["16-bit"]


def test_animations_give_their_first_frame():
    """Of a red and a blue frame the red one."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image, notes = decode("key", data, Decoding())
    assert image.getpixel((3, 3)) == (255, 0, 0)
    assert "animated" in [note.kind for note in notes]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_carried_out(orientation):
    """Against the corners that EXIF tells: which is the visual top left and top right."""
    corners = np.zeros((8, 16, 3), dtype=np.uint8)
    corners[:4, :8], corners[:4, 8:], corners[4:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(corners), "PNG", exif=exif)
    image, notes = decode("key", data, Decoding())
    # EXIF 2.3: what row 0 and column 0 of the file are to the viewer.
    row_0, column_0 = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    x = {"left": 1, "right": image.width - 2}
    y = {"top": 1, "bottom": image.height - 2}
    origin = (x.get(row_0, x.get(column_0)), y.get(row_0, y.get(column_0)))
    assert image.getpixel(origin) == (250, 0, 0)
    assert image.size == ((16, 8) if orientation < 5 else (8, 16))
    assert [note.kind for note in notes] == ([] if orientation == 1 else ["oriented"])
    assert kinds(data, Decoding(is_oriented=False)) == (("RGB", (16, 8)), [])


def test_truncated_files_are_left_out():
    """Cut in the middle of the pixels."""
    for form in ("JPEG", "PNG"):
        data = encoded(rgb(), form)
        assert kinds(data[: len(data) // 2]) == (None, ["truncated"])


def test_files_that_are_no_images_are_left_out():
    """Empty, text, a foreign format."""
    for data in (b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(1000)):
        image, notes = decode("key", data, Decoding())
        assert image is None
        assert [note.kind for note in notes] in (["unreadable"], ["truncated"])
        assert notes[0].is_skipped
        assert "\n" not in notes[0].detail
    assert kinds(encoded(rgb(), "PCX")) == (None, ["unreadable"])
    floats = encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    assert kinds(floats) == (None, ["unreadable"])


def test_what_is_said_of_a_file_is_the_same_in_every_run():
    """Formats in place of the address of an object in memory."""
    _, notes = decode("key", b"no image", Decoding(formats=("PNG", "JPEG")))
    assert [note.detail for note in notes] == ["expected one of PNG, JPEG"]


def png_bomb(side):
    """A PNG that claims side x side pixels and holds none."""

    def chunk(name, body):
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_huge_images_are_left_out_before_their_pixels():
    """Above our limit, above Pillow's warning and above Pillow's own limit; at ours they pass."""
    for side in (10_000, 14_000, 60_000):
        assert kinds(png_bomb(side)) == (None, ["huge"])
    assert kinds(encoded(rgb()), Decoding(max_pixels=96 * 80)) == (("RGB", (96, 80)), [])
    assert kinds(encoded(rgb()), Decoding(max_pixels=96 * 80 - 1)) == (None, ["huge"])


@settings(max_examples=60)
@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_flipped_bytes_never_raise(form, places):
    """Damage anywhere: an RGB image or a note comes out."""
    data = bytearray(encoded(rgb().resize((24, 20)), form))
    for place, value in places:
        data[place % len(data)] = value
    image, notes = decode("key", bytes(data), Decoding(max_pixels=10**6))
    assert (image is None) == any(note.is_skipped for note in notes)
    assert image is None or image.mode == "RGB"


def test_reports_count_all_and_list_what_was_left_out():
    """Three batches' notes."""
    report = Report()
    report.add(2, [Note(key="a.png", kind="palette", detail="decoded", is_skipped=False)])
    report.add(1, [Note(key="b.jpg", kind="truncated", detail="at byte 7", is_skipped=True)])
    report.add(4, [])
    assert report.summary == "7 images read, 1 left out, palette 1, truncated 1"
    assert report.lines() == ["b.jpg: truncated: at byte 7"]


def test_wrong_settings_are_refused():
    """The message names the field."""
    with pytest.raises(ValueError, match="max_pixels: expected 1 to 178956970, got 0"):
        Decoding(max_pixels=0)
    with pytest.raises(ValueError, match="formats: expected at least one"):
        Decoding(formats=())
