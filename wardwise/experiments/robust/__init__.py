"""The study of what punctuality costs: plans of all methods on the same random days."""

import sys
from pathlib import Path

# The peers of the benchmarks serve here, too.
sys.path.append(str(Path(__file__).resolve().parents[2]))
