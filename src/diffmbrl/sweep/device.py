"""The device and the numerics that every computation of this project runs under."""

import os

import jax

from diffmbrl.errors import UserError

PLATFORMS = ("auto", "cpu", "gpu")


def configure(platform: str = "auto") -> None:
    """Sets the numerics that results depend on; call once, before the first computation.

    float64; the original (not partitionable) Threefry, on which the published random
    schedule rests; and one thread an XLA program, so that results do not depend, to the
    byte, on the number of cores: parallelism comes from running several programs at once
    (`diffmbrl.sweep.engine`).

    Args:
        platform: `auto` (a GPU where JAX sees one), `cpu` or `gpu`.

    Raises:
        UserError: unknown platform, or `gpu` where JAX sees none.
    """
    if platform not in PLATFORMS:
        raise UserError(f"device: {platform!r} is unknown; use one of {', '.join(PLATFORMS)}")
    flags = os.environ.get("XLA_FLAGS", "")
    for flag in ("--xla_cpu_multi_thread_eigen=false", "--xla_gpu_deterministic_ops=true"):
        if flag.split("=")[0] not in flags:
            flags = f"{flags} {flag}".strip()
    os.environ["XLA_FLAGS"] = flags
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_threefry_partitionable", False)
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if platform == "gpu" and jax.default_backend() != "gpu":
        raise UserError(
            "device: gpu was asked for, but JAX sees none; install a jax build with GPU "
            "support or set `device: auto` in config/config.yaml"
        )


def describe() -> str:
    """Names the device that JAX computes on, for the record of a run."""
    device = jax.devices()[0]
    return f"{device.platform}: {device.device_kind}"
