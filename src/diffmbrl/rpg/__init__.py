"""Model-based reparameterization policy gradients (Zhang, Liu, Wang and Zhao 2023)."""
