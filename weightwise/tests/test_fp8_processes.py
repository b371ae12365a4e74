"""8-bit gradients, whole-tensor ZeRO and tensor parallelism over real processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one, two and four processes find."""
    folder = tmp_path_factory.mktemp("fp8")
    results = {}
    for size in (1, 2, 4):
        out = folder / f"{size}.pt"
        done = subprocess.run(
            [sys.executable, HERE / "launch.py", str(size), HERE / "fp8_worker.py", out],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results[size] = torch.load(out)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_sums_have_the_bits_of_a_single_process(found, size):
    """Every arithmetic, the same in all processes."""
    assert found[size]["sums"] == {"exact": 0.0, "shared": 0.0, "ring": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_averaged_gradients_are_within_roundings(found, size):
    """Two passes of a step in small buckets, stored in E4M3; and those of DDP with the hook."""
    assert found[size]["gradients"] <= 3 * 2.0**-4
    assert found[size]["hook"] <= 2 * 2.0**-4


@pytest.mark.slow
def test_a_backward_pass_that_failed_leaves_no_trace(found):
    """The next one is averaged as if it had not been."""
    for size in (1, 2, 4):
        assert found[size]["after an error"] <= 2.0**-4


@pytest.mark.slow
def test_a_nan_of_one_process_is_known_to_all(found):
    """Its mean has an infinite amax everywhere."""
    for size in (2, 4):
        assert found[size]["not finite"] == [float("inf")] * size


@pytest.mark.slow
def test_processes_with_other_models_are_told(found):
    """All of them, by the first parameter that differs."""
    assert found[1]["not alike"] == "nothing"
    for size in (2, 4):
        assert (
            "1.weight (6, 4) torch.float32 in process 1 and 1.weight (5, 4)"
            in (found[size]["not alike"])
        )


@pytest.mark.slow
def test_a_process_does_not_wait_for_ever(found):
    """After the group's time it says for what it waited."""
    for size in (2, 4):
        assert "all must make the same backward passes" in found[size]["in vain"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_parallel_layers_are_the_whole_ones(found, size):
    """Output and three gradients are as near to exact ones as those of whole 8-bit layers."""
    errors = found[size]["tensor parallel"]
    for kind in ("same", "e5m2"):
        for ours, whole in zip(errors[kind], errors["whole"], strict=True):
            assert ours <= (1.3 if kind == "same" else 1.8) * whole
            assert ours < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_levels_learn_as_a_single_process_does(found, level):
    """The losses of 20 steps with one, two and four processes, and they fall."""
    single = found[1]["levels"][level]
    assert single[-1] < 0.7 * single[0]
    for size in (2, 4):
        assert found[size]["levels"][level] == pytest.approx(single, rel=0.05)
