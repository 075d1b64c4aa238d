"""Postgres 17: one instance with data checksums, scram passwords and reserved connections."""

from cos_controllers.components.postgres.engine import Postgres

__all__ = ["Postgres"]
