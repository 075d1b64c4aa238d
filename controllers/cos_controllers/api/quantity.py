"""Kubernetes quantities ("250m", "1.5", "512Mi") as exact numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([KMGTPE]i|[numkMGTPE]))?$")
_SUFFIX = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}

MI = 2**20

# The API server's own form for quantities; the lengths bound the cost of CEL rules.
_SCHEMA = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
    "maxLength": 20,
}


def parse_quantity(text: str) -> Decimal:
    """The value of a quantity in its base unit (bytes, cores).

    Raises `ValueError` for text that Kubernetes would refuse.
    """
    match = _FORM.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a quantity; write for example 250m, 2, 512Mi or 10Gi")
    number, exponent, suffix = match.groups()
    if exponent:
        return Decimal(number + exponent)
    return Decimal(number) * _SUFFIX[suffix] if suffix else Decimal(number)


def is_positive_quantity(text: str | None) -> bool:
    """Whether `text` is absent or a quantity above zero."""
    if text is None:
        return True
    try:
        return parse_quantity(text) > 0
    except ValueError:
        return False


def _to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: A quantity as the user wrote it; integers become text, so that `cpu: 1` and `cpu: "1"` are one value.
Quantity = Annotated[str, BeforeValidator(_to_text), WithJsonSchema(_SCHEMA)]
