"""What is measured of a gradient estimator: tr(Sigma), |mean|^2 and bias, from independent samples.

Not what the released program logs: it never clears gradients between its 20 samples, so that
its running sums grow with the mean and the logged number is mostly the squared mean.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

PyTree = Any


class Moments(NamedTuple):
    """Sums over independent gradient samples, in float64.

    Attributes:
        n: number of samples.
        total: sum of the samples.
        squares: sum of their squared norms.
    """

    n: Float[Array, "*b"]
    total: Float[Array, "*b p"]
    squares: Float[Array, "*b"]

    @property
    def mean(self) -> Float[Array, "*b p"]:
        """The mean gradient."""
        return self.total / self.n[..., None]

    @property
    def trace(self) -> Float[Array, "*b"]:
        """tr(Sigma), unbiased: (sum |g|^2 - n |mean|^2) / (n - 1)."""
        return (self.squares - self.n * jnp.sum(self.mean**2, -1)) / (self.n - 1)

    @property
    def mean_square(self) -> Float[Array, "*b"]:
        """|E g|^2, unbiased: |mean|^2 - tr(Sigma) / n. May come out below 0."""
        return jnp.sum(self.mean**2, -1) - self.trace / self.n


def moments(samples: Float[Array, "n p"]) -> Moments:
    """Moments of samples that are already there."""
    samples = samples.astype(float)
    return Moments(jnp.asarray(float(len(samples))), samples.sum(0), jnp.sum(samples**2))


def measure(
    gradient: Callable[[PRNGKeyArray], PyTree], sample_keys: PRNGKeyArray, chunk: int
) -> Moments:
    """Moments of independent gradients, one a key, `chunk` of them at a time.

    Raises:
        ValueError: the chunk does not divide the number of keys.
    """
    n = len(sample_keys)
    if n % chunk:
        raise ValueError(f"chunk={chunk} must divide the number of samples, {n}")

    def flat(key):
        return ravel_pytree(gradient(key))[0]

    def one(chunk_keys):
        return moments(jax.vmap(flat)(chunk_keys))

    parts = jax.lax.map(one, sample_keys.reshape(n // chunk, chunk, *sample_keys.shape[1:]))
    return jax.tree.map(lambda x: x.sum(0), parts)
