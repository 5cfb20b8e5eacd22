"""Metrics of the implicit paper's result tables, and the eta of its figure 2."""

METRICS = ("residual_norm", "residual_ones_norm", "residual_ortho_norm", "mse")
ETA = 0.95
