"""What the API takes as the value of an engine's setting."""

from __future__ import annotations

from hypothesis import strategies as st

#: One line: no control characters of ASCII, whatever else.
ONE_LINE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(0x20)), "\x7f"]), max_size=80
)
