"""``python -m axe`` is the command ``axe``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
