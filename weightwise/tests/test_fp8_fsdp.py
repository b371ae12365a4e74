"""AdamW8 on parameters that torch's own sharding spreads over processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes find."""
    folder = tmp_path_factory.mktemp("fsdp")
    words = [HERE / "fsdp8_worker.py", folder / "found.pt", folder / "checkpoint"]
    done = subprocess.run(
        [sys.executable, HERE / "launch.py", "2", *words],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt")


@pytest.mark.slow
def test_parts_learn_as_the_whole(found):
    """Each process keeps 3 bytes of state for what it has; a part has a scale of its own."""
    assert found["kinds"] == ["ScaledTensor", "ScaledTensor"]
    torch.testing.assert_close(found["sharded"], found["plain"], rtol=1e-3, atol=0)


@pytest.mark.slow
def test_scaled_weights_can_be_sharded(found):
    """Their values are gathered for products; each part has a scale of its own."""
    sharded, whole = found["scaled"]
    torch.testing.assert_close(sharded, whole, rtol=1e-3, atol=0)


@pytest.mark.slow
def test_a_distributed_checkpoint_goes_on_with_the_same_bits(found):
    """Moments are saved as they are stored."""
    assert found["resumed"] == found["sharded"]


@pytest.mark.slow
def test_parts_are_read_by_a_single_process(found):
    """Parts come together under one scale, at one rounding at most."""
    torch.testing.assert_close(found["alone"], found["plain"][4:], rtol=5e-3, atol=0)


@pytest.mark.slow
def test_an_infinity_in_one_part_skips_the_step_everywhere(found):
    """Weights stay on both processes, and both count it."""
    assert found["skipped"] == [True, True]
