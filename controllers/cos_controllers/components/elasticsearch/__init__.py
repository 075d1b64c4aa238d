"""Elasticsearch 8: one node, users by the file realm, a live rotation of passwords."""

from cos_controllers.components.elasticsearch.engine import Elasticsearch

__all__ = ["Elasticsearch"]
