"""Random keys, derived by name and never by position."""

import zlib

import jax


def fold(key: jax.Array, *names: str | int | jax.Array) -> jax.Array:
    """The key of a named purpose: `fold(key, "batch")`; integers count within a purpose.

    Names enter through a hash that is the same on every machine and in every process.
    """
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)
    return key
