"""`kubectl cos`: what a person asks of stacks. Pure functions make the lines; the shell around them is thin.

Imports are late on purpose: a command pays only for what it uses.
"""

from __future__ import annotations

from typing import Any

#: A Kubernetes object as JSON data.
Manifest = dict[str, Any]
