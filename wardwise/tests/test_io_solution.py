"""CVRPLIB solutions: sequences and a cost, strictly read."""

import pytest

from wardwise.io import InputError, Solution, read_solution, write_solution


@pytest.fixture
def write(tmp_path):
    """Write text to a file and return its path."""

    def write_file(text):
        path = tmp_path / "file.sol"
        path.write_bytes(text.encode())
        return path

    return write_file


@pytest.mark.parametrize(
    "change", [("Route #", "Route "), (":", " :"), ("Cost ", "COST: "), ("\n", "\r\n")]
)
def test_solution_round_trip(write, tmp_path, change):
    """Sequences and cost come back, in the spellings that are about."""
    solution = Solution(routes=(("1", "4"), ("3",)), cost=12.5)
    write_solution(solution, tmp_path / "a.sol")
    text = (tmp_path / "a.sol").read_text()
    assert text == "Route #1: 1 4\nRoute #2: 3\nCost 12.5\n"
    assert read_solution(write(text.replace(*change))) == solution


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Cost 5\n", "Route: expected at least one, got none"),
        ("Route #2: 1\n", "1: Route: expected Route #1 before the cost, got #2"),
        ("Route #1: 1\nCost 5\nRoute #2: 2\n", "3: Route: expected Route #2 before the cost"),
        ("Route #1:\n", "1: Route: expected at least one customer, got none"),
        ("Route #1: 0\n", "1: customer: expected a whole number from 1 to 10000, got '0'"),
        ("Route #1: 1 x\n", "1: customer: expected a whole number from 1 to 10000, got 'x'"),
        ("Route #1: 1\nRoute #2: 2 1\n", "2: customer: expected each number once, got 1 again"),
        ("Route #1: 1\nCost nan\n", "2: Cost: expected a number from 0 to 1e+12, got 'nan'"),
        ("Route #1: 1\nCost 5\nCost 5\n", "3: expected a route or one cost, got 'Cost 5'"),
        ("hello\n", "1: expected a route or one cost, got 'hello'"),
    ],
)
def test_bad_solution_is_refused(write, text, message):
    """One line names file, line and field."""
    with pytest.raises(InputError) as error:
        read_solution(write(text))
    assert message in str(error.value)


def test_solution_of_named_requests_is_not_written(tmp_path):
    """The format knows numbers only."""
    with pytest.raises(ValueError, match="routes: expected whole numbers above 0, got 'a'"):
        write_solution(Solution(routes=(("a",),)), tmp_path / "a.sol")
