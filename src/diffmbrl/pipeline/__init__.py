"""The job wrapper and what the workflow knows of stages; it knows no paper."""
