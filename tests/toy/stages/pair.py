"""Used by train and aggregate."""

SHIFT = 1
