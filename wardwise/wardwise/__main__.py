"""``python -m wardwise`` is the command ``wardwise``."""

from wardwise.cli import main

if __name__ == "__main__":
    main()
