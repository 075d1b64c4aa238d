"""What every test shares."""

from __future__ import annotations

import sys
from pathlib import Path

# Helpers that stand beside the tests that use them (tests are not a package).
sys.path.insert(0, str(Path(__file__).parent / "unit" / "core"))
