"""The crash tests' own parts stand beside the program that uses them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "crash"))
