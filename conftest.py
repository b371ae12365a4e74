"""What every test run needs, whichever library it looks at."""

# The folders wardwise/ and weightwise/ would pass for namespace packages of the same names;
# importing the real ones first settles it.
import pytest
from hypothesis import settings

import wardwise  # noqa: F401
import weightwise  # noqa: F401

# A busy machine must not fail a test; speed is measured in benchmarks/. What passed once must
# pass again, so properties are tried on the same examples; `make explore` draws new ones.
settings.register_profile("workspace", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("workspace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process ends long after the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
