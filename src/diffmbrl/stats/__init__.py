"""Statistics: estimates, intervals, agreement with published numbers."""
