"""Figures: one style, and one module a figure."""
