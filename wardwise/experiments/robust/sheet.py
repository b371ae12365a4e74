"""The reference study: PyVRP for 4 s on inflated times, 20,000 days.

By instance and z: robots, distance, mean and largest probability of being late, stops
above 5 %, mean sum of delays by Monte Carlo and by the normal chain.
"""

from __future__ import annotations

from typing import NamedTuple


class Reference(NamedTuple):
    """One row of the reference study."""

    robots: int
    distance: float
    mean_late: float
    max_late: float
    num_above: int
    lateness: float
    chain_lateness: float


SHEET = {
    ("R101", 0.0): Reference(19, 1658.3, 0.089, 0.64, 34, 33.4, 29.5),
    ("R101", 1.0): Reference(25, 1908.5, 0.010, 0.14, 8, 3.8, 2.2),
    ("R112", 0.0): Reference(10, 958.4, 0.040, 0.54, 13, 20.5, 19.7),
    ("R112", 1.0): Reference(12, 1062.1, 0.000, 0.00, 0, 0.0, 0.0),
    ("R201", 0.0): Reference(4, 1289.0, 0.027, 0.51, 10, 13.4, 12.2),
    ("R201", 1.0): Reference(5, 1222.6, 0.002, 0.09, 2, 0.40, 0.27),
    ("R201", 1.645): Reference(5, 1262.0, 0.000, 0.002, 0, 0.0, 0.0),
    ("RC108", 0.0): Reference(11, 1134.8, 0.033, 0.46, 13, 16.9, 15.5),
    ("RC108", 1.0): Reference(13, 1357.8, 0.000, 0.008, 0, 0.06, 0.01),
    ("C101", 0.0): Reference(10, 828.9, 0.213, 0.58, 87, 594.0, 501.0),
    ("C101", 1.0): Reference(15, 1380.0, 0.010, 0.09, 5, 10.9, 4.3),
    ("C101", 1.645): Reference(17, 1547.9, 0.003, 0.03, 0, 2.6, 0.7),
    ("C201", 0.0): Reference(3, 591.6, 0.128, 0.53, 79, 601.0, 352.0),
    ("C201", 1.0): Reference(5, 843.3, 0.000, 0.01, 0, 0.4, 0.05),
}
