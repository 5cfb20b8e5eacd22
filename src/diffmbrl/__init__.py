"""Rebuilds, checks and extends three papers on learning through a model of the environment."""
