"""Explicit and implicit value parameterizations (Gehring et al. 2021)."""
