"""Tiny stages without JAX, to test the workflow as software."""
