"""What a small cache costs: kinds of attention side by side, with models of half a million weights.

Claims (arXiv 2410.15252, of which the averages over English benchmarks are known and no size,
bits or training): MLA, CLLA and CLLA-quant are no worse than attention with keys and values of
all heads, two layers that share a latent no worse than one, and four bits no worse than sixteen;
and what the method sheet adds: eight bits are free after training, two need training, asymmetric
codes are better at few bits, four layers a group are worse than two. CLLA-quant has asymmetric
codes of four bits, which the last tenth of its training sees.

Here: four layers of width 96 on half a million bytes of Python's sources and manual, three seeds,
see latent/arms.py; texts of up to 4096 tokens in which a value must be found, see
latent/needle.py; and trained multi-head models turned into CLLA. Rows with a goal are the claims.

Command   python weightwise/experiments/clla.py [FOLDER] [--jobs N] [--only STUDY ...]
          keeps the runs in FOLDER and goes on where it was stopped
Cost      about an hour on one CPU core, a third of it for the needles
"""

from __future__ import annotations

import sys

from latent.arms import SEEDS
from latent.codes import codes
from latent.conversion import conversion
from latent.retrieval import retrieval
from latent.variants import equal, parts, rates, variants
from study.command import run_studies

SYSTEM = "clla"
STUDIES = {
    "variants": variants,
    "codes": codes,
    "needle": retrieval,
    "conversion": conversion,
    "equal": equal,
    "parts": parts,
    "rates": rates,
}

if __name__ == "__main__":
    raise SystemExit(
        run_studies(
            STUDIES, sys.argv[1:], system=SYSTEM, words=__doc__.splitlines()[0], seed=SEEDS[0]
        )
    )
