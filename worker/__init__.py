"""The processes that work."""
