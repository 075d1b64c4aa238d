"""Redis 8: one instance with an append-only file and ACL users."""

from cos_controllers.components.redis.engine import Redis

__all__ = ["Redis"]
