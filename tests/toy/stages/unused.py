"""An agent that no stage uses."""

ANSWER = 42
