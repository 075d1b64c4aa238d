"""The API as pydantic models: the one source of schema, documentation, defaults and validation."""
