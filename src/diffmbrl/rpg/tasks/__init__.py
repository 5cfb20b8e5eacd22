"""The tasks that can be learned in, one module per task, whose `environment()` makes it."""
