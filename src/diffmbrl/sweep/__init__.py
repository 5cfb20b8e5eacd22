"""Sweeps: from a grid of settings to one compiled program that trains every run."""
