"""Where pods may run: the one part of the API in the Kubernetes client's own models, which take long to load."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cos_controllers.api.common import StringMap, class_rule, syntax_rule
from cos_controllers.api.model import ApiModel, Rule
from cos_controllers.k8s import V1Affinity, V1Toleration, V1TopologySpreadConstraint


def _is_tolerable(item: V1Toleration) -> bool:
    if item.effect not in {None, "", "NoSchedule", "PreferNoSchedule", "NoExecute"}:
        return False
    return (
        not item.value
        if item.operator == "Exists"
        else item.operator in {None, "", "Equal"} and bool(item.key)
    )


class Scheduling(ApiModel):
    """Where pods may run, in the shapes of a pod's spec."""

    node_selector: StringMap = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[V1Toleration], Field(max_length=32)] = []
    """Taints that the pods tolerate."""
    affinity: V1Affinity | None = None
    """Affinity of the pods."""
    topology_spread_constraints: Annotated[
        list[V1TopologySpreadConstraint],
        Field(max_length=16, json_schema_extra={"x-list-map-keys": ["topologyKey", "whenUnsatisfiable"]}),
    ] = []
    """Spread of the pods over zones or nodes."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        syntax_rule("node_selector", name="labels", values=True),
        Rule(
            cel="!has(self.tolerations) || self.tolerations.all(t, "
            "(!has(t.effect) || t.effect in ['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute']) && "
            "(has(t.operator) && t.operator == 'Exists' ? !has(t.value) || t.value == '' : "
            "(!has(t.operator) || t.operator in ['', 'Equal']) && has(t.key) && t.key != ''))",
            message="tolerations: operator is Equal, with a key, or Exists, without a value; effect is NoSchedule, "
            "PreferNoSchedule, NoExecute or left out",
            holds=lambda self: all(map(_is_tolerable, self.tolerations)),
            field_path=".tolerations",
        ),
        Rule(
            cel="!has(self.topologySpreadConstraints) || self.topologySpreadConstraints.all(c, c.maxSkew > 0 && "
            "c.whenUnsatisfiable in ['DoNotSchedule', 'ScheduleAnyway'])",
            message="topologySpreadConstraints: maxSkew is 1 or more; whenUnsatisfiable is DoNotSchedule or "
            "ScheduleAnyway",
            holds=lambda self: all(
                item.max_skew > 0 and item.when_unsatisfiable in {"DoNotSchedule", "ScheduleAnyway"}
                for item in self.topology_spread_constraints
            ),
            field_path=".topologySpreadConstraints",
        ),
        class_rule("priority_class_name", "PriorityClass"),
    )
