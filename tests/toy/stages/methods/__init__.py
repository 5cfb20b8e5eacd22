"""How runs start, one method per module."""
