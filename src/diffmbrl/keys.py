"""Random keys derived by name, so that adding a draw leaves every other draw as it was."""

import zlib

import jax
from jaxtyping import Array, Key, UInt32


def fold(key: Key[Array, ""] | UInt32[Array, "2"], *names: str) -> Array:
    """The key that belongs to a name under `key`: fold_in of the name's CRC-32, name by name."""
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key
