"""Every rendered object of every case, compared with its file. `make golden` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from cos_controllers.k8s import Manifest
from cos_controllers.observation import Snapshot
from cos_controllers.parsing import parse_stack
from cos_controllers.resolve import resolve

HERE = Path(__file__).parent
CASES = sorted((HERE / "cases").glob("*.yaml"))
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"


def rendered(case: Path) -> dict[str, str]:
    """File name to content, one file a component."""
    spec = yaml.safe_load(case.read_text())
    metadata = {
        "name": "cos",
        "namespace": "cos",
        "uid": "00000000-0000-0000-0000-000000000001",
        "generation": 1,
    }
    raw: Manifest = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": spec}
    resolution = resolve(parse_stack(raw), Snapshot(entropy=bytes(32)))
    files = {"stack.yaml": resolution.common}
    for wanted in resolution.components:
        assert wanted.instance, wanted.blocker
        files[f"{wanted.component}.yaml"] = wanted.instance.objects
    return {name: yaml.safe_dump_all(objects, sort_keys=True, width=110) for name, objects in files.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_rendering_is_as_recorded(case: Path) -> None:
    folder = HERE / "rendered" / case.stem
    files = rendered(case)
    if UPDATE:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in set(folder.glob("*.yaml")) - {folder / name for name in files}:
            stale.unlink()
        for name, text in files.items():
            (folder / name).write_text(text)
    recorded = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    assert files == recorded, "if the change is wanted: make golden, and read the diff"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_rendering_is_deterministic(case: Path) -> None:
    assert rendered(case) == rendered(case)
