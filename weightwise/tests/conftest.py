"""What several test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture
def law_data() -> Path:
    """Folder of the scaling-law data."""
    folder = os.environ.get("WEIGHTWISE_DATA")
    if not folder:
        pytest.skip("WEIGHTWISE_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of a few steps whose tokenizer knows conversations."""
    from rich.console import Console

    from weightwise.recipes import tiny
    from weightwise.train import train

    base, folder = tiny(), tmp_path_factory.mktemp("chat-model")
    recipe = replace(
        base,
        name="base",
        model=replace(base.model, max_length=96),
        data=replace(base.data, chat_tokens=True),
        train=replace(base.train, steps=4),
    )
    quiet = Console(quiet=True)
    train(recipe, folder / "run", cache_dir=folder / "cache", console=quiet)
    return folder / "run"


@pytest.fixture
def said_in_the_interpreter(request: pytest.FixtureRequest) -> str:
    """What pytest says of the same file in Triton's interpreter, where all of it passes."""
    # Triton chooses between interpreter and compiler when it is imported.
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(request.path)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


@pytest.fixture
def bfloat16_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 as GPUs have it: Triton's interpreter cuts casts off and multiplies the bits."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    import triton.language as tl
    from triton.runtime import interpreter

    inexact, product = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot

    def cast(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(data)).bfloat16()
            return rounded.view(torch.uint16).numpy()
        if (source, target) == (tl.bfloat16, tl.float32):
            return data.astype(np.uint32) << 16
        return inexact(data, source, target, mode)

    def widened(handle: Any) -> Any:
        if handle.dtype != tl.bfloat16:
            return handle
        data = cast(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return product(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter, "_convert_float", cast)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
