"""The device and the numerics of JAX that every computation of this project runs under."""

import jax

from diffmbrl import numerics
from diffmbrl.errors import UserError

DEVICES = ("auto", "cpu", "gpu")


def configure(device: str = "auto") -> str:
    """Sets what results depend on; call before the first computation.

    float64; the original (not partitionable) Threefry, on which the published random schedule
    rests; the pinned numerics, by which an XLA program has one thread, so that results do not
    depend, to the byte, on the number of cores: parallelism comes from running several programs
    at once (`diffmbrl.sweep.engine`).

    Args:
        device: `auto` (a GPU where JAX sees one), `cpu` or `gpu`.

    Returns:
        `cpu`, or the name of the GPU.

    Raises:
        UserError: unknown device, `gpu` where JAX sees none, or the numerics are not pinned.
    """
    if device not in DEVICES:
        raise UserError(f"device: {device!r} is unknown; use one of {', '.join(DEVICES)}")
    numerics.check()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_threefry_partitionable", False)
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    found = jax.devices()[0]
    if device == "gpu" and found.platform != "gpu":
        raise UserError(
            "device: gpu was asked for, but JAX sees none; install a jax build with GPU "
            "support or set `device: auto` in config/config.yaml"
        )
    return "cpu" if found.platform == "cpu" else found.device_kind


def platform() -> str:
    """Where the computations of this process are made, as far as their bytes depend on it."""
    found = jax.devices()[0]
    return numerics.platform("cpu" if found.platform == "cpu" else found.device_kind)
