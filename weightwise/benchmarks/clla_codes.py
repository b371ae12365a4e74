"""Error and time of codes against optimum-quanto and hqq, on the same latents.

    python weightwise/benchmarks/clla_codes.py

256 normed latents of 512 features: bells of one size, as RMSNorm leaves them. Theirs are asymmetric
with a float16 scale and zero point per group; ours are compared once in the same layout, and once
as they are by default, symmetric in groups of 32, which take the bytes of asymmetric groups of 64.
Times are of quantising and reading back, one thread, CPU time, medians of ratios taken in turns.
"""

from __future__ import annotations

import argparse

import torch
from peers import codes as peers
from peers.clock import SEED, compare, emit, threads

from weightwise.lm import CodeConfig
from weightwise.lm.latent.codes import bytes_per_row, decode, encode, fake_quantize

SYSTEM = "clla"
ROWS, WIDTH, GROUP = 256, 512, 64


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    x_NW = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(SEED))
    for peer, known in peers.BITS.items():
        for bits in known:
            measure_error(x_NW, peer, bits)
    measure_time(x_NW, repeats)


def measure_error(x_NW: torch.Tensor, peer: str, bits: int) -> None:
    """Squared error over a peer's, in its layout and in ours of the same bytes."""
    theirs = error(peers.seen_by(peer, x_NW, bits, GROUP), x_NW)
    same = CodeConfig(bits=bits, group_width=GROUP, is_symmetric=False)
    ours = CodeConfig(bits=bits)
    assert bytes_per_row(WIDTH, ours) == bytes_per_row(WIDTH, same)
    for name, config in (("same_layout", same), ("same_bytes", ours)):
        found = error(fake_quantize(x_NW, config), x_NW)
        emit(
            SYSTEM, name=f"code_error_over_{peer}_int{bits}_{name}", value=round(found / theirs, 3),
            unit="x", peer=peers.named(peer), goal=("<=", 1.0), detail={
                "ours": found, "theirs": theirs, "rows": ROWS, "width": WIDTH,
                "bits_all_in": bytes_per_row(WIDTH, config) * 8 / WIDTH,
                "group_width": config.group_width, "is_symmetric": config.is_symmetric,
            },
        )  # fmt: skip


def measure_time(x_NW: torch.Tensor, repeats: int) -> None:
    """Quantising and reading back in 4 bits, over quanto."""
    config = CodeConfig()
    with threads(1):
        times = compare(
            lambda: peers.by_quanto(x_NW, 4, GROUP),
            {
                "ours": lambda: decode(encode(x_NW, config), config, WIDTH, torch.float32),
                "ours_in_training": lambda: fake_quantize(x_NW, config),
                "hqq": lambda: peers.by_hqq(x_NW, 4, GROUP),
            },
            repeats,
        )
    emit(
        SYSTEM, name="code_time_over_quanto_int4", value=round(times["ours"].ratio, 3), unit="x",
        peer=peers.named("quanto"), detail={
            "rows": ROWS, "width": WIDTH, "threads": 1,
            "times": {name: one.detail() for name, one in times.items()},
        },
    )  # fmt: skip


def error(seen_NW: torch.Tensor, x_NW: torch.Tensor) -> float:
    """Mean squared error."""
    return float((seen_NW - x_NW).square().mean())


if __name__ == "__main__":
    main()
