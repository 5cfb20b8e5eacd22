"""Environments: functional ones in JAX, registered with gymnasium."""
