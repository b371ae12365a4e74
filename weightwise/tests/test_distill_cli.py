"""`weightwise distill` as a user calls it: a whole story, two processes and a kill, bad input."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from weightwise.cli import main
from weightwise.distill import SoftLabels, augmentation_seeds
from weightwise.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    TrainTransform,
    View,
    fingerprints,
)
from weightwise.recipes.vision import load_vision_recipe
from weightwise.train.vision_targets import open_target
from weightwise.vision import TinyViT, TinyViTConfig, save_tiny_vit

# Logits of ten classes are ten numbers of the image; "slow" waits, so that it can be killed.
ASK = """
import time
import torch

def ask(x_B3SS):
    return 3 * torch.nn.functional.adaptive_avg_pool2d(x_B3SS, 2).flatten(1)[:, :10]

def slow(x_B3SS):
    time.sleep(0.05)
    return ask(x_B3SS)

def wrong(x_B3SS):
    return ask(x_B3SS) + torch.arange(10)

def hundred(x_B3SS):
    return x_B3SS.flatten(1)[:, :100]

def flat(x_B3SS):
    return x_B3SS.mean((1, 2, 3))
"""
LAUNCH = "from weightwise.cli import main\nraise SystemExit(main())\n"
NUM_IMAGES = 40
SEE = ("--size", "16", "--batch-size", "8")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of 40 x 32 pixels in two class folders, and one file that is none."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        (folder / f"class{number % 2}").mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 40)).save(folder / f"class{number % 2}/{number}.png")
    (folder / "class0/broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in a folder with the module ``ask``; gives code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "ask", raising=False)
    (tmp_path / "ask.py").write_text(ASK)

    def run(*words):
        code = main(["distill", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def save(call, images, *more, out="labels", teacher="ask:ask"):
    """``distill save`` of two epochs."""
    return call("save", images, "--teacher", teacher, "--out", out, "--epochs", "2", *SEE, *more)


def labels_of(path, epoch=0):
    """Keys of an epoch in order, with seeds, classes and values."""
    store = SoftLabels(path)
    names = sorted(store.names().values())
    names = [one for one in names if store.contains(epoch, [one])[0]]
    return names, store.gather(epoch, names)


def assert_same(first, second):
    """Two answers of `labels_of` agree in every bit."""
    assert first[0] == second[0]
    for one, other in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_are_what_the_teacher_says_of_images_made_from_the_seeds(call, images):
    """Softmax of the teacher, asked here about one image at a time, gives the stored classes."""
    code, out, err = save(call, images, "--top-k", "4")
    assert code == 0
    # 40 images of 2 epochs; the broken file has no labels, and a line tells of it.
    assert out.startswith("80 labels written, 0 were there before")
    assert "1 images could not be read" in err and "broken.png" in err
    import ask

    view = View(size=16, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    transform = TrainTransform(augmentation=Augmentation(), views=(view,))
    for epoch in (0, 1):
        names, batch = labels_of("labels", epoch)
        assert len(names) == NUM_IMAGES
        np.testing.assert_array_equal(batch.seeds, augmentation_seeds(0, epoch, names))
        for row, name in enumerate(names):
            image = Image.open(images / name).convert("RGB")
            (x_3SS,) = transform(image, int(batch.seeds[row]))
            value, index = ask.ask(x_3SS[None]).softmax(1)[0].topk(4)
            assert batch.indices[row].tolist() == index.tolist()
            np.testing.assert_allclose(batch.values[row], value, atol=5e-4)  # 11 bits


def test_saving_again_asks_nothing_and_other_labels_are_refused(call, images):
    """A complete store is left as it is; one of another teacher or augmentation is another one."""
    save(call, images)
    before = labels_of("labels")
    code, out, _ = save(call, images)
    assert code == 0 and out.startswith("0 labels written, 80 were there before")
    assert_same(before, labels_of("labels"))
    for more, field in (
        (("--set", "augmentation.erase_prob=0"), "fingerprint"),
        (("--base-seed", "1"), "base_seed"),
        (("--top-k", "3"), "k"),
        (("--mean", "0.5", "0.5", "0.5"), "teacher"),
    ):
        code, _, err = save(call, images, *more)
        assert code == 2 and f"{field}: expected" in err and err.count("\n") == 1
    assert_same(before, labels_of("labels"))


def test_check_tells_a_teacher_from_another(call, images):
    """The same teacher differs by nothing, whatever the batches; another one gives code 1."""
    save(call, images)
    words = ("--size", "16", "--json")
    code, out, _ = call("check", "labels", images, "--teacher", "ask:ask", *words)
    found = json.loads(out)
    assert code == 0 and found["canary"] and found["images"] == NUM_IMAGES
    assert found["value_error"] < 1e-6 and found["index_share"] == 0
    code, out, err = call(
        "check", "labels", images, "--teacher", "ask:wrong", *words, "--epoch", 1, "--num-images", 7
    )
    found = json.loads(out)
    assert code == 1 and found["images"] == 7 and found["value_error"] > 0.01
    assert found["teacher"] != found["stored_teacher"]
    code, out, err = call("check", "labels", images, "--teacher", "ask:wrong", "--size", "16")
    assert code == 1 and "the same" in out and err.count("\n") == 1


def test_check_notices_a_decoder_that_makes_other_pixels(call, images, monkeypatch):
    """A store whose canary is not what comes out here is not good, though the numbers are."""
    save(call, images)
    shown = fingerprints.computed_pixels()
    monkeypatch.setattr(fingerprints, "computed_pixels", lambda: shown // 2 * 2)
    code, out, _ = call("check", "labels", images, "--teacher", "ask:ask", "--size", "16", "--json")
    assert code == 1 and not json.loads(out)["canary"]


def test_parts_of_a_store_come_to_the_same_as_the_whole(call, images):
    """Three processes' parts, one with worker processes, give the bits of one process."""
    save(call, images, out="whole")
    for part, more in (("2/3", ()), ("0/3", ("--workers", "1")), ("1/3", ("--batch-size", "3"))):
        code, out, _ = save(call, images, "--part", part, *more, "--json", out="parts")
        # 41 files in three parts, of which one has the file that is no image.
        assert code == 0 and json.loads(out)["written"] in (2 * 12, 2 * 13, 2 * 14)
    assert sorted(one.name for one in call_files("parts")) == ["0.soft", "1.soft", "2.soft"]
    for epoch in (0, 1):
        assert_same(labels_of("whole", epoch), labels_of("parts", epoch))


def call_files(path):
    """Files of the first epoch."""
    return (SoftLabels(path).path / "epoch-00000").glob("*.soft")


def test_tools_work_on_stores(call, images):
    """Info, verify, subset, merge, pack and salvage, each told in words and as JSON."""
    save(call, images)
    code, out, _ = call("info", "labels", "--json")
    found = json.loads(out)
    assert code == 0 and found["config"]["classes"] == 10
    assert [one["labels"] for one in found["epochs"]] == [NUM_IMAGES] * 2
    assert call("verify", "labels")[:2] == (0, "epoch 0: 40 images\nepoch 1: 40 images\nsound\n")
    names, _ = labels_of("labels")
    for half, part in (("first", names[:15]), ("second", names[15:])):
        Path(f"{half}.txt").write_text("".join(f"{one}\n" for one in part))
        words = ("subset", "labels", "--out", half, "--keys", f"{half}.txt")
        assert call(*words)[0] == 0
    assert call("merge", "first", "second", "--out", "merged", "--json")[0] == 0
    assert_same(labels_of("labels"), labels_of("merged"))
    code, out, _ = call("subset", "labels", "--out", "small", "--epochs", "1", "--top-k", "2")
    assert code == 0 and out.startswith("40 labels in 1 epochs")
    code, out, _ = call("pack", "labels", "--out", "packed", "--json")
    found = json.loads(out)
    # A plain record has 16 bytes before 10 classes of 4 bytes; a byte a probability packs better.
    assert found["bytes_before"] == 56 and found["bytes_after"] < 56
    assert 0 < found["kl_mean"] < 1e-2
    assert call("check", "packed", images, "--teacher", "ask:ask", "--size", "16")[0] in (0, 1)
    assert call("salvage", "labels", "--out", "saved")[:2] == (
        0, "80 labels in 2 epochs; 0 damaged stretches left out: saved\n",
    )  # fmt: skip
    assert "teacher" in call("info", "labels")[1]


def test_damage_is_told_and_the_rest_is_saved(call, images):
    """One byte of one record changed: verify gives code 1, salvage leaves one label out."""
    save(call, images)
    path = SoftLabels("labels").path / "epoch-00001/0.soft"
    raw = bytearray(path.read_bytes())
    raw[4096 + 56 * 7 + 30] ^= 1  # a value of the eighth record
    path.write_bytes(raw)
    code, out, err = call("verify", "labels")
    assert code == 1 and "checksum" in out and err.count("\n") == 1
    code, out, _ = call("salvage", "labels", "--out", "saved")
    assert (code, out) == (0, "79 labels in 2 epochs; 1 damaged stretches left out: saved\n")
    assert call("verify", "saved")[0] == 0
    # The same pass as before fills the gap with the very label.
    assert call("salvage", "labels", "--out", "labels")[0] == 2
    save(call, images, out="saved")
    save(call, images, out="whole")
    assert_same(labels_of("saved", 1), labels_of("whole", 1))


@pytest.mark.parametrize("layout", ["official", "apple"])
def test_layouts_of_others_go_out_and_come_back(call, images, layout):
    """Both exchange formats keep every class and number."""
    save(call, images)
    assert call("convert", "labels", "--to", layout, "--out", "other")[0] == 0
    words = ("convert", "other", "--out", "back", "--classes", "10", "--teacher", "me", "--json")
    code, out, _ = call(*words)
    assert code == 0 and json.loads(out)["labels"] == 80
    names, before = labels_of("labels", 1)
    again, after = labels_of("back", 1)
    assert names == again and SoftLabels("back").config.teacher == "me"
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_array_equal(before.values, after.values)


@pytest.mark.slow
def test_labels_made_for_a_recipe_are_those_that_it_trains_from(call):
    """What `distill train` opens is what `distill save --recipe` has written; not so without it."""
    words = ("save", "composites:train:4", "--teacher", "ask:hundred", "--size", "8", "--out")
    assert call(*words, "labels", "--recipe", "composites-student")[0] == 0
    change = "augmentation.flip_prob=0.25"
    assert call(*words, "changed", "--recipe", "composites-student", "--set", change)[0] == 0
    assert call(*words, "other")[0] == 0
    recipes = [
        load_vision_recipe("composites-student", [f"targets.store={store}", *more])
        for store, more in (("labels", ()), ("changed", (change,)), ("other", ()))
    ]
    for recipe in recipes[:2]:
        assert open_target(recipe).identity
    with pytest.raises(ValueError, match=r"augmentation\..* as in the images of other"):
        open_target(recipes[2])


def test_weights_of_ours_are_a_teacher(call, images, tmp_path):
    """A file of a TinyViT gives its own logits; other weights of the same name are refused."""
    config = TinyViTConfig(
        widths=(8, 16, 16, 16), depths=(1, 1, 1, 1), windows=(1, 1, 1), head_width=8,
        image_size=32, num_classes=5,
    )  # fmt: skip
    model = TinyViT(config)
    model.initialize(torch.Generator().manual_seed(0))
    save_tiny_vit(model, tmp_path / "model.safetensors")
    words = ("save", images, "--teacher", "model.safetensors", "--out", "labels", "--top-k", "5")
    assert call(*words)[0] == 0
    assert SoftLabels("labels").config.teacher.startswith("model.safetensors 32px ")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere/model.safetensors")
    again = [one.replace("model.s", "elsewhere/model.s") for one in map(str, words)]
    assert call(*again)[:2][0] == 0
    model.initialize(torch.Generator().manual_seed(1))
    save_tiny_vit(model, tmp_path / "elsewhere/model.safetensors")
    code, _, err = call(*again)
    assert code == 2 and "teacher: expected 'model.safetensors 32px" in err


BAD = [
    (("save", "IMAGES", "--teacher", "ask:none"), "teacher: expected MODULE:FUNCTION"),
    (("save", "IMAGES", "--teacher", "nowhere:ask"), "teacher: expected MODULE:FUNCTION"),
    (("save", "IMAGES", "--teacher", "nothing"), "or a path that exists, got 'nothing'"),
    (("save", "IMAGES", "--teacher", "ask:ASK"), "teacher: expected MODULE:FUNCTION"),
    (("save", "IMAGES", "--teacher", "ask:flat"), "expected logits of shape (2, classes)"),
    (("save", "IMAGES", "--teacher", "ask.py"), "expected a checkpoint or the folder"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--top-k", "11"), "k: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--epochs", "0"), "epochs: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--part", "2/2"), "part: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--part", "x"), "part: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--shard", "../x"), "shard: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--size", "1"), "size: expected 2 to 4096"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--batch-size", "0"), "batch_size: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--device", "abacus"), "device: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--prompt", "a"), "prompt: expected"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--set", "augmentation.zoom=1"), "zoom"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--set", "augmentation.flip_prob=2"), "flip_prob"),
    (("save", "IMAGES", "--teacher", "ask:ask", "--recipe", "none"), "recipe: expected a TOML"),
    (("save", "IMAGES", "--teacher", "open_clip:ViT-B-32"), "open_clip"),
    (("save", "nowhere", "--teacher", "ask:ask"), "images: expected a folder"),
    (("save", ".", "--teacher", "ask:ask"), "expected at least one image"),
    (("save", "digits:x:y", "--teacher", "ask:ask"), "images: expected digits[:PART]"),
    (("save", "composites:train:x", "--teacher", "ask:ask"), "images: expected composites"),
    (("save", "hf", "--teacher", "ask:ask"), "images: expected hf:NAME"),
    (("info", "nowhere"), "expected a store"),
    (("verify", "nowhere"), "expected a store"),
    (("pack", "nowhere"), "expected a store"),
    (("salvage", "nowhere"), "expected a store"),
    (("subset", "nowhere"), "expected a store"),
    (("merge", "nowhere"), "expected a store"),
    (("convert", "IMAGES"), "classes: expected"),
    (("convert", "IMAGES", "--classes", "3"), "files: expected logits_top"),
    (("convert", "nowhere", "--classes", "3"), "expected a folder"),
    (("convert", "IMAGES", "--to", "apple", "--classes", "3"), "expected none with --to"),
    (("check", "nowhere", "IMAGES", "--teacher", "ask:ask"), "expected a store"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_gets_one_line(call, images, tmp_path, words, message):
    """Code 2, nothing on standard output, and no file is left behind."""
    out = () if words[0] in ("info", "verify", "check") else ("--out", "new")
    code, text, err = call(*(str(images) if one == "IMAGES" else one for one in words), *out)
    assert (code, text) == (2, "")
    assert err.startswith("weightwise: ") and err.count("\n") == 1
    assert message in err
    assert [one.name for one in tmp_path.iterdir() if "new" in one.name] == []


@pytest.mark.slow
def test_killed_process_goes_on_and_nothing_is_lost(call, start, images, tmp_path):
    """Two processes, one killed amid its work; started again it asks for the missing ones only."""
    launch = tmp_path / "launch.py"
    launch.write_text(LAUNCH)
    words = ("distill", "save", images, "--out", tmp_path / "two", "--teacher", "ask:slow",
             "--epochs", "2", "--size", "16", "--batch-size", "2", "--part")  # fmt: skip
    other = start(launch, *words, "1/2")
    with start(launch, *words, "0/2") as killed:
        killed.until("epoch 0: ")
        path = tmp_path / "two/epoch-00001/0.soft"
        while not path.exists() or path.stat().st_size < 4096 + 3 * 56:
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    other.finish()
    _, out, _ = call("info", tmp_path / "two", "--json")
    assert [one["open"] for one in json.loads(out)["epochs"]] == [0, 1]
    stored = len(labels_of(tmp_path / "two", 1)[0])
    assert 20 + 3 <= stored < NUM_IMAGES
    out = start(launch, *words, "0/2").finish()
    assert out.startswith(f"{NUM_IMAGES - stored} labels written")
    assert call("verify", tmp_path / "two")[0] == 0
    save(call, images, out="whole", teacher="ask:slow")
    for epoch in (0, 1):
        assert_same(labels_of("whole", epoch), labels_of(tmp_path / "two", epoch))


def test_two_processes_with_one_part_are_refused(call, images, tmp_path):
    """Who takes a file that another process writes is told to choose another."""
    from weightwise.distill import StoreWriter

    save(call, images)
    with StoreWriter("labels", SoftLabels("labels").config, epoch=0, shard="0"):
        code, _, err = save(call, images)
    assert code == 2 and "no other process writes" in err
