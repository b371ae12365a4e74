"""What every test run needs, whichever library it looks at."""

# The folders wardwise/ and weightwise/ would pass for namespace packages of the same names;
# importing the real ones first settles it.
from hypothesis import settings

import wardwise  # noqa: F401
import weightwise  # noqa: F401

# A busy machine must not fail a test; speed is measured in benchmarks/. What passed once must
# pass again, so properties are tried on the same examples; `make explore` draws new ones.
settings.register_profile("workspace", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("workspace")
