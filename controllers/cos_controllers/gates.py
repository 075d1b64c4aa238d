"""Gates: what an engine was found to be like, judged against what it is to be like. See docs/adr/0014.

A verdict has no figures in it that move, so that a stack at rest costs no write; metrics have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.status import GateName, GateStatus, Verdict
from cos_controllers.diagnose import cut
from cos_controllers.names import ANNOTATION_CONFIGURATION
from cos_controllers.observation import Expectation, Facts, RouteTarget, Snapshot, Usage, ref_of
from cos_controllers.pods import is_pod_ready, pods_of
from cos_controllers.volumes import capacity
from cos_controllers.wanted import Wanted

#: Shares of a limit in percent, at which a headroom fails and below which it passes again: what hovers at a limit
#: shall not turn its gate with every look.
FULL_PERCENT = 80
FREE_PERCENT = 75
#: How long an engine that reads its configuration while it runs may take to: kubelet refreshes a mount within 85 s
#: by itself.
RELOAD_LIMIT = timedelta(seconds=120)
#: How many looks in a row may find less out, or find out that something has failed, before they are believed. The next
#: one follows soon: a backend that fails now and again, or a moment of load, turns no gate.
DOUBTS = 2

NOT_LOOKED_AT = "not looked at yet"
DOES_NOT_SERVE = "it does not serve: "
NOT_ASKED = "not asked: "
RENDERED_ANEW = "what is rendered now comes into force with the pod's next restart"
RELOADING = "the engine has yet to read its new configuration"


class Judgement(NamedTuple):
    """What a gate says now."""

    name: GateName
    verdict: Verdict
    message: str


class Known(NamedTuple):
    """What is taken to be so of an engine; `doubts` looks in a row have said worse."""

    facts: Facts
    doubts: int = 0


def learnt(known: Known | None, found: Facts) -> Known:
    """What to take as known after another look: what was known stands in for what is worse, for `DOUBTS` looks."""
    if known is None or known.doubts >= DOUBTS:
        return Known(found)
    kept: dict[str, Any] = {
        item.name: value
        for item in fields(Facts)
        if item.name != "unknown"
        and getattr(found, item.name) is None
        and (value := getattr(known.facts, item.name)) is not None
    }
    if found.serving and known.facts.serving == "":
        kept["serving"] = ""
    if found.troubles and known.facts.troubles == ():
        kept["troubles"] = ()
    answered = {name for name, said in (known.facts.routes or {}).items() if said == ""}
    if failed := {name for name, said in (found.routes or {}).items() if said} & answered:
        kept["routes"] = {**(found.routes or {}), **dict.fromkeys(failed, "")}
    return Known(replace(found, **kept), known.doubts + 1) if kept else Known(found)


def expectation(wanted: Wanted, snapshot: Snapshot) -> Expectation:
    """What a component is to be like, as far as it can be.

    Pods of an earlier rendering stay as they are, and nobody has read what is not written (`spec.paused`).
    """
    if not wanted.instance:
        return Expectation()
    expected, otherwise = wanted.instance.expected, ""
    rendered = {
        (pod["metadata"].get("annotations") or {}).get(ANNOTATION_CONFIGURATION)
        for pod in pods_of(wanted, snapshot)
        if is_pod_ready(pod)
    }
    size = capacity(wanted.claim, snapshot.objects)
    if not expected.reloads and not rendered <= {expected.rendering}:
        otherwise = RENDERED_ANEW
    elif any(
        obj["kind"] == "ConfigMap" and snapshot.objects.get(ref_of(obj), {}).get("data") != obj["data"]
        for obj in wanted.instance.objects
    ):
        otherwise = RELOADING
    return replace(expected, capacity=int(parse_quantity(size)) if size else None, otherwise=otherwise)


def judge(
    expected: Expectation, facts: Facts | None, before: Sequence[GateStatus], now: datetime
) -> tuple[Judgement, ...]:
    """A judgement for each gate that the engine has.

    Without facts, of an engine that serves, the gates are as they were `before`: another operator, or this one
    before it was started, has looked. `before` also tells what has failed (`FREE_PERCENT`), and since when something
    is being read (`RELOAD_LIMIT`).
    """
    earlier = {status.name: status for status in before}
    found = []
    for name in expected.gates:
        status = earlier.get(name)
        if facts is None and status and not status.message.startswith((DOES_NOT_SERVE, NOT_ASKED)):
            verdict, message = status.verdict, status.message
        elif facts is None:
            verdict, message = Verdict.UNKNOWN, NOT_LOOKED_AT
        else:
            verdict, message = _verdict(name, expected, facts, status, now)
            message = cut(message)
            if name is GateName.SERVING and status and _same_words(status.message, message):
                message = status.message
        found.append(Judgement(name, verdict, message))
    return tuple(found)


def unasked(names: Sequence[GateName], verdict: Verdict, message: str) -> tuple[Judgement, ...]:
    """The judgements of an engine that nobody asks: its `verdict` on Serving, and all else unknown."""
    return tuple(
        Judgement(name, verdict if name is GateName.SERVING else Verdict.UNKNOWN, message) for name in names
    )


def _verdict(
    name: GateName, expected: Expectation, facts: Facts, before: GateStatus | None, now: datetime
) -> tuple[Verdict, str]:
    unknown = Verdict.UNKNOWN, facts.unknown or "the engine did not say"
    if name is GateName.SERVING:
        return unknown if facts.serving is None else _passed_unless(facts.serving)
    if name is GateName.HEALTH:
        return unknown if facts.troubles is None else _passed_unless("; ".join(facts.troubles))
    if name is GateName.CONFIGURATION_IN_FORCE:
        return _configuration(expected, facts, before, now) or unknown
    if name is GateName.CONNECTION_HEADROOM:
        return _headroom("the connections for applications", facts.connections, before) or unknown
    if name is GateName.STORAGE_HEADROOM:
        return _headroom("the volume", facts.storage, before) or unknown
    return unknown if facts.routes is None else _routes(expected.routes, facts.routes)


def _passed_unless(message: str) -> tuple[Verdict, str]:
    return (Verdict.FAILED, message) if message else (Verdict.PASSED, "")


def _configuration(
    expected: Expectation, facts: Facts, before: GateStatus | None, now: datetime
) -> tuple[Verdict, str] | None:
    if facts.configuration is None:
        return (Verdict.UNKNOWN, expected.otherwise) if expected.otherwise else None
    wrong = {
        name: facts.configuration.get(name, "not set")
        for name, value in sorted(expected.configuration.items())
        if facts.configuration.get(name) != value
    }
    if not wrong:
        return Verdict.PASSED, ""
    if expected.otherwise:
        return Verdict.UNKNOWN, expected.otherwise
    told = ", ".join(
        f"{name} is {value}, not {expected.configuration[name]}" for name, value in wrong.items()
    )
    message = cut(f"the engine runs with another configuration than was rendered: {told}")
    if expected.reloads and not _is_overdue(before, message, now):
        return Verdict.UNKNOWN, RELOADING
    return Verdict.FAILED, message


def _is_overdue(before: GateStatus | None, message: str, now: datetime) -> bool:
    """Whether a new configuration has been awaited for too long, or this very one was given up on already."""
    if before is None:
        return False
    if before.verdict is Verdict.FAILED:
        return before.message == message
    return before.message == RELOADING and now - datetime.fromisoformat(before.since) >= RELOAD_LIMIT


def _headroom(what: str, usage: Usage | None, before: GateStatus | None) -> tuple[Verdict, str] | None:
    if usage is None or usage.limit <= 0:
        return None
    failed = before is not None and before.verdict is Verdict.FAILED
    if usage.used * 100 < usage.limit * (FREE_PERCENT if failed else FULL_PERCENT):
        return Verdict.PASSED, ""
    return Verdict.FAILED, f"{FULL_PERCENT} % of {what} or more are taken"


def _routes(expected: Sequence[RouteTarget], found: Mapping[str, str | None]) -> tuple[Verdict, str]:
    names = sorted(route.name for route in expected)
    if failed := [f"route {name}: {said}" for name in names if (said := found.get(name))]:
        return Verdict.FAILED, "; ".join(failed)
    if waiting := [name for name in names if found.get(name, "") is None]:
        return Verdict.UNKNOWN, f"waits until the component behind it serves: route {', '.join(waiting)}"
    if untried := [name for name in names if name not in found]:
        return Verdict.UNKNOWN, f"not tried yet: route {', '.join(untried)}"
    return Verdict.PASSED, ""


def _same_words(message: str, other: str) -> bool:
    """Whether two messages differ in figures alone: an engine names a file, or an amount, that is another each time."""
    return re.sub(r"\d+", "", message) == re.sub(r"\d+", "", other)
