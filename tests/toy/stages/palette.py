"""Used by the figure alone."""

COLOR = "blue"
