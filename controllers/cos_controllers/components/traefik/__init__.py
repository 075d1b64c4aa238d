"""Traefik 3: a proxy whose routes come from the stack's spec, without access to the Kubernetes API."""

from cos_controllers.components.traefik.engine import Traefik

__all__ = ["Traefik"]
