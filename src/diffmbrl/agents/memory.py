"""How much memory replay buffers take, said and refused before a run starts."""

import sys

import jax
import psutil

from diffmbrl.agents import replay
from diffmbrl.errors import ConfigError

SHARE = 0.8  # of what is free may be taken by replay buffers
GB = 1e9


def bytes_of(item, capacity: int) -> int:
    """Of a buffer for items shaped like `item`."""
    shapes = jax.eval_shape(lambda: replay.empty(item, capacity))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def free() -> int:
    """Bytes that are free on the device that computes."""
    found = jax.devices()[0]
    if found.platform == "cpu":
        return psutil.virtual_memory().available
    stats = found.memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"]


def lanes(each: int, runs: int, at_once: int, what: str) -> int:
    """How many runs can be trained side by side; says so on standard error.

    Args:
        each: bytes of one run's buffer.
        runs: how many there are.
        at_once: how many are trained at the same time: threads on a CPU, all of them on a GPU.
        what: the run's name.

    Raises:
        ConfigError: not even one buffer fits.
    """
    room = int(SHARE * free())
    fit = min(runs, at_once, room // each)
    text = f"{what}: the replay of a run takes {each / GB:.3g} GB of {room / GB:.3g} GB"
    if fit < 1:
        raise ConfigError(f"{text}: does not fit; lower steps or distractors")
    sys.stderr.write(f"{text}, of {fit} at once {fit * each / GB:.3g} GB\n")
    return fit
