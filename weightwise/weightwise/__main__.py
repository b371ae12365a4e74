"""``python -m weightwise``."""

from weightwise.cli import main

raise SystemExit(main())
