"""SAC's own objective: h = 0, no model."""

from diffmbrl.rpg.objective import Estimator

LABEL = "SAC"
COLOR = 7
ORDER = 0
MODEL_FREE = True  # trains at h = 0 only
ESTIMATOR = Estimator(surrogate=None)
