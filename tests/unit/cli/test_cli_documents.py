"""Manifests that people write, and what an apply makes of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cos_operator.cli.documents import merged, read_stack
from cos_operator.cli.errors import CliError

STACK = """
apiVersion: cos.dev/v1alpha1
kind: CosStack
metadata: {name: cos}
spec: {redis: {}}
"""
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: cos}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "stack.yaml"
    path.write_text(text)
    return str(path)


def test_the_stack_is_found_among_other_objects(tmp_path: Path) -> None:
    found = read_stack(write(tmp_path, f"{NAMESPACE}---{STACK}---\n"))
    assert found.stack["spec"] == {"redis": {}}
    assert found.others == 1


def test_json_and_lists_are_manifests_too(tmp_path: Path) -> None:
    item = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": {"name": "a"}, "spec": {}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [item]}
    assert read_stack(write(tmp_path, json.dumps(listed))).stack == item


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(STACK))
    assert read_stack("-").stack["metadata"]["name"] == "cos"


def test_one_of_several_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, f"{STACK}---{STACK.replace('name: cos', 'name: other')}")
    assert read_stack(path, "other").stack["metadata"]["name"] == "other"
    with pytest.raises(CliError, match="several stacks: name one of cos, other"):
        read_stack(path)
    with pytest.raises(CliError, match="holds no stack third; it holds cos, other"):
        read_stack(path, "third")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NAMESPACE, "holds no object of kind CosStack"),
        ("", "holds no object of kind CosStack"),
        ("just text", "holds no object of kind CosStack"),
        ("a: [", "is not YAML"),
        (STACK.replace("{name: cos}", "{}"), "no metadata.name"),
        (STACK.replace("v1alpha1", "v9"), "has apiVersion cos.dev/v9"),
    ],
)
def test_what_is_no_manifest_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(CliError, match=says) as caught:
        read_stack(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"cannot read .*nowhere.yaml: No such file"):
        read_stack(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CliError, match="not UTF-8"):
        read_stack(str(tmp_path / "binary"))


@pytest.mark.parametrize(
    ("live", "manifest", "applied", "expected"),
    [
        # What the last manifest had and this one has not goes; what others set stays.
        ({"a": 1, "b": 2, "paused": True}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "paused": True}),
        # Maps merge at every depth.
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}, {"a": {"x": 1}}, {"a": {"x": 3, "y": 2}}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}),
        # Lists are replaced as a whole.
        ({"l": [{"name": "prod"}, {"name": "dev"}]}, {"l": [{"name": "dev"}]}, {}, {"l": [{"name": "dev"}]}),
        # Without an earlier apply nothing goes.
        ({"a": 1, "b": 2}, {"a": 3}, None, {"a": 3, "b": 2}),
        # A null takes a field away.
        ({"a": 1, "b": 2}, {"a": None}, {}, {"b": 2}),
        # A map in the place of a value.
        ({"a": 1}, {"a": {"x": 1}}, {"a": 1}, {"a": {"x": 1}}),
    ],
)
def test_a_client_side_apply_merges_three_ways(
    live: dict[str, Any], manifest: dict[str, Any], applied: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    before = {"spec": live, "status": {"x": 1}}
    last = None if applied is None else json.dumps({"spec": applied})
    assert merged(before, {"spec": manifest, "status": {}}, last) == {"spec": expected, "status": {"x": 1}}
    assert before == {"spec": live, "status": {"x": 1}}


@pytest.mark.parametrize("spoilt", ["{", "[]", "null"])
def test_a_spoilt_annotation_takes_nothing_away(spoilt: str) -> None:
    assert merged({"spec": {"a": 1}}, {"spec": {"b": 2}}, spoilt) == {"spec": {"a": 1, "b": 2}}
