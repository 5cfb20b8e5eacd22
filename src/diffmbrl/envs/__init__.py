"""Environments: functional ones in JAX; importing this registers them with gymnasium."""

from diffmbrl.envs.registration import register_all

register_all()
