"""What is measured of a gradient estimator: tr(Sigma), |mean|^2 and bias, from independent samples.

Not what the released program logs: it never clears gradients between its 20 samples, so that
its running sums grow with the mean and the logged number is mostly the squared mean.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

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


def pool(parts: Moments) -> Moments:
    """Moments of all the samples of a leading axis of groups together."""
    return jax.tree.map(lambda x: x.sum(0), parts)


def measure(gradient: Callable[..., PyTree], *groups: PyTree) -> Moments:
    """Moments of each group of independent gradients.

    Args:
        gradient: one sample from one entry of each of `groups`.
        groups: arrays with leading axes (groups, samples); one group is in memory at a time.

    Returns:
        Moments with a leading axis of groups.
    """
    return jax.lax.map(lambda group: moments(_flat(gradient, group)), groups)


def measure_pairs(
    one: Callable[..., PyTree], other: Callable[..., PyTree], *groups: PyTree
) -> tuple[Moments, Moments, Moments]:
    """Moments of two estimators on the same entries of `groups`, and of their difference."""

    def both(group):
        a, b = _flat(one, group), _flat(other, group)
        return moments(a), moments(b), moments(a - b)

    return jax.lax.map(both, groups)


def finish(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured as a row of floats."""
    row = {name: float(value) for name, value in values.items()}
    row["diverged"] = not np.isfinite(row["trace"])
    return row


def _flat(gradient: Callable[..., PyTree], group: PyTree) -> Float[Array, "samples p"]:
    return jax.vmap(lambda *entry: ravel_pytree(gradient(*entry))[0])(*group)
