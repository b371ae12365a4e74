"""The demo's page: curves, sizes, figures and the text around them."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, ModelConfig, SwiGLUConfig
from weightwise.numerics import PrecisionConfig, parse
from weightwise.report import (
    Arm,
    Curves,
    Story,
    WeightBytes,
    read_curves,
    render_page,
    weight_bytes,
    write_page,
)
from weightwise.report.figures import loss_chart, size_chart, value_chart, zoom_chart
from weightwise.report.page import gap_percent, shrink, verdict
from weightwise.report.runs import smooth
from weightwise.report.svg import ticks

MODEL = ModelConfig(
    vocab_size=10,
    width=8,
    num_layers=2,
    max_length=4,
    attention=GQAConfig(num_heads=2, num_kv_heads=1),
    ffn=SwiGLUConfig(hidden=12),
)


def arm(name: str, loss: float, *, levels: tuple[float, ...] = (), blocks: int = 400) -> Arm:
    return Arm(
        name=name,
        curves=Curves(
            train=tuple((step, loss + 10 / step) for step in range(1, 101)),
            valid=tuple((step, loss + 20 / step - 0.2) for step in range(20, 101, 20)),
            tokens_per_s=1234.0,
        ),
        size=WeightBytes(blocks=blocks, scales=0 if blocks == 400 else 10, rest=100),
        levels=levels,
        sample=f"{name} & <script>alert(1)</script>",
    )


ARMS = (
    arm("FP32", 3.0),
    arm("E4M3", 3.03, levels=tuple(parse("e4m3").levels().tolist()), blocks=90),
    arm("E2M1", 3.15, levels=tuple(parse("e2m1").levels().tolist()), blocks=40),
)
STORY = Story(
    arms=ARMS,
    density=(0.1, 0.4, 0.4, 0.1),
    prompt="def <f>",
    settings=(("seed", "1"), ("model", "2 blocks & more")),
    command="weightwise demo --seed 1",
)


def svg_root(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314 - our own drawing, nothing foreign in it


def test_curves_come_from_both_kinds_of_rows(tmp_path):
    """Three training rows, two evaluation rows; the median speed of 10, 30, 20 is 20."""
    rows = [
        {"step": 1, "tokens": 8, "train_loss": 5.0, "lr": 0.1, "tokens_per_s": 10.0},
        {"step": 2, "tokens": 16, "train_loss": 4.0, "lr": 0.1, "tokens_per_s": 30.0},
        {"step": 2, "valid_loss": 4.5},
        {"step": 3, "tokens": 24, "train_loss": 3.0, "lr": 0.1, "tokens_per_s": 20.0},
        {"step": 3, "valid_loss": 4.25},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    curves = read_curves(path)
    assert curves.train == ((1, 5.0), (2, 4.0), (3, 3.0))
    assert curves.valid == ((2, 4.5), (3, 4.25))
    assert (curves.tokens_per_s, curves.final_loss) == (20.0, 4.25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected the metrics of a run"),
        ("{", "expected one JSON object a line"),
        ('{"step": 1, "train_loss": 2.0, "tokens_per_s": 1.0}', "got 1 and 0"),
    ],
)
def test_unusable_metrics_name_the_file(tmp_path, content, message):
    """Missing, broken or without evaluation."""
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_curves(path)
    assert str(path) in str(caught.value)


def test_smoothing_takes_the_same_reach_to_both_sides():
    """Window 3 over 0 3 9 6: ends stay, the middle is (0+3+9)/3 = 4 and (3+9+6)/3 = 6."""
    points = ((1, 0.0), (2, 3.0), (3, 9.0), (4, 6.0))
    assert smooth(points, 3) == ((1, 0.0), (2, 4.0), (3, 6.0), (4, 6.0))
    assert smooth(points, 1) == points


@given(slope=st.integers(-5, 5), count=st.integers(1, 30), window=st.integers(1, 40))
def test_smoothing_keeps_straight_lines(slope, count, window):
    """A straight line has the same average on both sides of every point that is kept."""
    line = tuple((x, float(slope * x)) for x in range(count))
    got = smooth(line, window)
    assert len(got) == max(1, count - window // 4)
    assert [y for _, y in got] == pytest.approx([y for _, y in line[: len(got)]])


@pytest.mark.parametrize(
    ("precision", "quantized"),
    [
        # Per block: query and output 8x8, key and value 4x8, gate and up 12x8, down 8x12:
        # 480 elements, and 8+4+4+8+12+12+8 = 56 rows. Two blocks: 960 elements, 112 rows.
        (PrecisionConfig(), 960 * 4),
        (PrecisionConfig(format="e4m3"), 960 + 112 * 4),
        (PrecisionConfig(format="e2m1"), 480 + 112 * 4),
        # Seven matrices a block with one scale each.
        (PrecisionConfig(format="e4m3", granularity="tensor"), 960 + 14 * 4),
        # Blocks of 5: rows of 8 take two scales, the 8 rows of 12 take three: 48*2 + 8*3 = 120.
        (PrecisionConfig(format="e4m3", granularity="block", block_size=5), 960 + 240 * 4),
    ],
)
def test_weight_bytes_are_counted_by_hand(precision, quantized):
    """Embedding 10x8 and five norms of 8 stay in float32: 480 bytes."""
    size = weight_bytes(MODEL, precision)
    assert size.quantized == quantized
    assert size.rest == (80 + 40) * 4
    assert size.total == quantized + 480


def test_untied_head_counts_as_rest():
    """A head of its own adds 80 float32 elements."""
    size = weight_bytes(replace(MODEL, tie_embeddings=False), PrecisionConfig(format="e4m3"))
    assert size.rest == (80 + 80 + 40) * 4


def test_verdict_states_gap_and_ratio():
    """3.03 is 1 % above 3; 400 bytes against 100; 3.15 is 5 % above; 400 against 50."""
    assert gap_percent(ARMS[1], ARMS[0]) == pytest.approx(1.0)
    assert shrink(ARMS[2], ARMS[0]) == 8.0
    assert verdict(ARMS) == [
        "E4M3: loss 1.00 % above FP32, block weights 4.0 times smaller.",
        "E2M1: loss 5.00 % above FP32, block weights 8.0 times smaller.",
    ]
    assert "1.00 % below" in verdict((ARMS[0], arm("E4M3", 2.97, blocks=90)))[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 400, [0, 100, 200, 300, 400]),
        (2.93, 3.11, [2.95, 3.0, 3.05, 3.1]),
        (-1, 1, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    ],
)
def test_ticks_are_round(low, high, expected):
    """Steps of 1, 2 or 5 times a power of ten, inside the bounds."""
    assert ticks(low, high) == expected


@given(low=st.floats(-1e3, 1e3), span=st.floats(1e-3, 1e3))
def test_there_are_always_two_to_seven_ticks(low, span):
    """Never an axis without numbers, never a crowd."""
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    "drawing",
    [
        loss_chart(ARMS, width=330),
        zoom_chart(ARMS, width=330),
        size_chart(ARMS, width=330),
        value_chart(ARMS, STORY.density, width=330),
    ],
    ids=["loss", "zoom", "size", "values"],
)
def test_figures_are_well_formed_and_inside_their_frame(drawing):
    """Each parses as XML, has a label for screen readers, and nothing lies outside."""
    root = svg_root(drawing)
    assert root.attrib["aria-label"]
    height = float(root.attrib["height"])
    for node in root.iter():
        if "x" in node.attrib and "y" in node.attrib:
            assert 0 <= float(node.attrib["x"]) <= 330
            assert 0 <= float(node.attrib["y"]) <= height
        for pair in node.attrib.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 330
            assert 0 <= y <= height


def test_every_value_of_a_format_has_a_tick():
    """E2M1 has 7 positive values, so 15 ticks; E4M3 has 127, so 255; FP32 has no line."""
    root = svg_root(value_chart(ARMS, STORY.density, width=330))
    paths = [node for node in root.iter() if "tick" in node.attrib.get("class", "")]
    assert [node.attrib["d"].count("M") for node in paths] == [255, 15]


def test_zoom_leaves_out_the_first_part():
    """Of 20, 40, 60, 80, 100 the last 40 % of 100 steps keeps 60, 80, 100 for three runs."""
    root = svg_root(zoom_chart(ARMS, width=330))
    marks = [node for node in root.iter() if "mark" in node.attrib.get("class", "")]
    assert len(marks) == 3 * 3


class Outline(HTMLParser):
    """Collects addresses and scripts, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        """Note a tag that will be closed, and what it points to."""
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # noqa: ARG002 - the base class calls it so
        """Note a tag that closes itself."""
        self.tags.add(tag)

    def handle_endtag(self, tag):
        """The tag must be the one opened last."""
        assert self.open.pop() == tag


def test_page_is_whole_self_contained_and_escaped(tmp_path):
    """Tags nest, nothing is loaded from elsewhere, and generated text cannot become markup."""
    write_page(STORY, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.addresses == []
    assert "script" not in outline.tags
    assert "url(" not in page
    assert "E4M3 &amp; &lt;script&gt;" in page
    assert "def &lt;f&gt;" in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_page_shows_the_numbers_of_every_arm():
    """Loss, gap, bytes and speed as they are in the story."""
    page = render_page(STORY)
    for expected in ("3.0300", "+1.00 %", "3.1500", "+5.00 %", "1,234", "2 blocks &amp; more"):
        assert expected in page
    assert all(sentence in page for sentence in verdict(ARMS))


def test_loss_below_the_base_is_called_luck():
    """The remark comes with a format that beats the base, and not otherwise."""
    lucky = replace(STORY, arms=(ARMS[0], arm("E4M3", 2.9, blocks=90)))
    assert "the luck of this run" in render_page(lucky)
    assert "the luck of this run" not in render_page(STORY)


def test_any_generated_text_gives_a_page_that_nests():
    """Model output is arbitrary text; closing tags in it stay text."""
    outline = Outline()
    outline.feed(render_page(replace(STORY, arms=(*ARMS[:2], replace(ARMS[2], sample="</pre>")))))
    assert outline.open == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_page_fits_the_screen_of_a_browser(tmp_path, width):
    """No script error, and the page does not scroll sideways on a phone or a laptop."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    write_page(STORY, tmp_path / "page.html")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get((tmp_path / "page.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return document.querySelectorAll('svg').length") > 0
        assert browser.get_log("browser") == []
    finally:
        browser.quit()
