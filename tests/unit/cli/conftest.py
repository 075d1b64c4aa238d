"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that plans silences the log of its process; the tests go on in it."""
    yield
    structlog.reset_defaults()
