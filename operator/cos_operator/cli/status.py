"""How a stack is: what runs, what waits, and for what. Pure: from the live object to lines and data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from cos_operator.cli import Manifest
from cos_operator.cli.errors import one_line
from cos_operator.cli.output import BAD, FAINT, GOOD, STRONG, WAITS, Line, Span, age, line

#: Conditions that are good news when they are False.
_GOOD_WHEN_FALSE = frozenset({"Reconciling", "Stalled"})
#: Reasons for which nobody needs to act; a test compares them with the operator's own.
MOVING = frozenset(
    {
        "BackingUp",
        "Creating",
        "NotAnswering",
        "Provisioning",
        "Restarting",
        "Starting",
        "VolumeResizing",
        "Waiting",
    }
)
#: How a gate's message begins that says no more than its component's reason; a test compares them too.
OF_THE_ROW = ("it does not serve: ", "not asked: ")
_ORDER = ("Ready", "Available", "GatesPassed", "SLOMet", "Reconciling", "Stalled")


class Verdict(NamedTuple):
    """Whether the stack serves what its present spec asks for, and a sentence if it does not."""

    ready: bool
    text: str


def verdict(stack: Manifest) -> Verdict:
    """What status says of the present spec; what it says of an earlier one counts for nothing."""
    metadata, status = stack["metadata"], stack.get("status") or {}
    conditions = _conditions(status)
    ready = conditions.get("Ready", {}).get("status")
    observed = status.get("observedGeneration")
    if since := metadata.get("deletionTimestamp"):
        text = f"being deleted since {since}"
    elif observed is None:
        text = "no operator has looked at it yet: does one run, and for this namespace?"
    elif observed < metadata.get("generation", 0):
        text = "the operator has not looked at the present spec yet; what follows is of an earlier one"
    elif ready == "True":
        return Verdict(ready=True, text="")
    elif ready != "False":
        text = "it is not known how it is"
    elif conditions.get("Stalled", {}).get("status") == "True":
        text = f"needs a person ({conditions['Stalled']['reason']})"
    else:
        text = "under way, nobody has to act yet"
    return Verdict(ready=False, text=text)


def status_data(stack: Manifest) -> dict[str, Any]:
    """The answer of `-o json`: the verdict, and the status as the API has it."""
    metadata, (ready, text) = stack["metadata"], verdict(stack)
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "ready": ready,
        "message": text,
        "paused": bool(stack["spec"].get("paused")),
        "generation": metadata.get("generation"),
        "status": stack.get("status") or {},
    }


def status_tree(stack: Manifest, now: datetime) -> Line:
    """The stack, its conditions, a branch per component, and the volumes kept of removed ones."""
    metadata, status = stack["metadata"], stack.get("status") or {}
    ready, text = verdict(stack)
    head: list[str | Span] = [
        Span(f"{metadata['namespace']}/{metadata['name']}", STRONG),
        "  ",
        Span("Ready" if ready else "Not ready", GOOD if ready else BAD),
    ]
    head += [f": {text}"] if text else []
    facts = []
    if "summary" in status:
        facts.append(f"{status['summary']} components ready")
    if "revision" in status:
        facts.append(f"revision {status['revision']}")
    head += [Span(f"  ({', '.join(facts)})", FAINT)] if facts else []
    below: list[Line] = []
    if stack["spec"].get("paused"):
        resume = f"kubectl cos resume {metadata['name']} -n {metadata['namespace']}"
        below.append(line(Span("paused", WAITS), f": the operator changes nothing until `{resume}`"))
    rows = status.get("components") or []
    below += _condition_lines(status, rows, now)
    below += _component_lines(rows, _own_message(status), now)
    present = {row["name"] for row in rows}
    below += [
        line(Span("kept ", FAINT), _kept(volume["claim"], volume["component"], present))
        for volume in status.get("retained") or ()
    ]
    return line(*head, below=below)


def _conditions(status: Manifest) -> dict[str, Manifest]:
    return {item["type"]: item for item in status.get("conditions") or ()}


def _kept(claim: str, component: str, present: Collection[str]) -> str:
    """What a volume is on which nothing runs, and what can be done about it."""
    if component in present:
        return (
            f"volume {claim} of {component}, on which it does not run: a restore has set it aside, or fills it. Delete "
            "the PersistentVolumeClaim when no restore runs and nothing of it is needed"
        )
    return (
        f"volume {claim} of {component}, which the spec no longer has: add it again to use the volume, or delete the "
        "PersistentVolumeClaim"
    )


def _condition_lines(status: Manifest, rows: Sequence[Manifest], now: datetime) -> list[Line]:
    found = _conditions(status)
    names = [*(name for name in _ORDER if name in found), *sorted(set(found) - set(_ORDER))]
    widths = [max((len(text) for text in texts), default=0) for texts in (names, ["Unknown"])]
    lines = []
    for name in names:
        item = found[name]
        state = item["status"]
        good = state == ("False" if name in _GOOD_WHEN_FALSE else "True")
        style = GOOD if good else WAITS if state == "Unknown" or name == "Reconciling" else BAD
        parts: list[str | Span] = [name.ljust(widths[0] + 2), Span(state.ljust(widths[1] + 2), style)]
        parts.append(Span(f"for {age(item.get('lastTransitionTime'), now)}".ljust(9), FAINT))
        if not good:
            parts.append(item["reason"])
            message = one_line(item.get("message") or "")
            # What the components' own lines say is not said twice.
            if message and not any(_says(row, message) for row in rows):
                parts.append(f": {message}")
        lines.append(line(*parts))
    return lines


def _says(row: Manifest, message: str) -> bool:
    """Whether a condition's message only repeats what components say of themselves."""
    own = one_line(row.get("message") or row["reason"])
    gates = (f"{row['name']} {gate['name']}" for gate in row.get("gates") or ())
    return f"{row['name']}: {own}" in message or any(gate in message for gate in gates)


def _own_message(status: Manifest) -> str:
    """The message of Ready: rows that have that very one only repeat it."""
    return str(_conditions(status).get("Ready", {}).get("message") or "")


def _component_lines(rows: Sequence[Manifest], of_stack: str, now: datetime) -> list[Line]:
    columns = [
        (row["name"], row.get("version") or "", row["reason"], row.get("endpoint") or "") for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    lines = []
    for row, (name, version, reason, endpoint) in zip(rows, columns, strict=True):
        mark, style = _mark(row)
        since = age(row.get("since"), now)
        lines.append(
            line(
                Span(f"{mark} ", style),
                Span(name.ljust(widths[0] + 2), STRONG),
                version.ljust(widths[1] + 2),
                Span(reason.ljust(widths[2] + 2), style),
                Span((f"for {since}" if since else "").ljust(9), FAINT),
                Span(endpoint, FAINT),
                below=list(_details(row, of_stack)),
            )
        )
    return lines


def _mark(row: Manifest) -> tuple[str, str]:
    """A sign for how a component is: + serves what is asked, ~ gets on by itself, ! needs a person."""
    if row.get("ready"):
        return "+", GOOD
    return ("~", WAITS) if row["reason"] in MOVING else ("!", BAD)


def _details(row: Manifest, of_stack: str) -> Iterator[Line]:
    message = one_line(row.get("message") or "")
    if message and row.get("message") != of_stack:
        yield line(message)
    if progress := row.get("progress"):
        yield line(f"the engine says: {one_line(progress)}")
    yield from _gate_lines(row)
    secret = (row.get("binding") or {}).get("name")
    yield line(_revisions(row), Span(f"; credentials: Secret {secret}" if secret else "", FAINT))


def _gate_lines(row: Manifest) -> Iterator[Line]:
    """What does not pass; gates that say the same in one line, and none that only repeat the row's reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for gate in row.get("gates") or ():
        said = one_line(gate.get("message") or "")
        if gate["verdict"] != "Passed" and not said.startswith(OF_THE_ROW):
            found.setdefault((gate["verdict"], said), []).append(gate["name"])
    for (verdict, said), names in found.items():
        style = BAD if verdict == "Failed" else WAITS
        what = "gate" if len(names) == 1 else "gates"
        yield line(f"{what} {', '.join(names)} ", Span(verdict, style), f": {said}")


def _revisions(row: Mapping[str, Any]) -> Span:
    desired, running = row.get("desiredRevision"), row.get("effectiveRevision")
    good, failed = row.get("lastGoodRevision"), row.get("failedRevision")
    if desired and desired == running == good and not failed:
        return Span(f"revision {desired}", FAINT)
    named = {"desired": desired, "running": running or "none", "last good": good, "taken back": failed}
    return Span("revisions: " + ", ".join(f"{what} {value}" for what, value in named.items() if value))
