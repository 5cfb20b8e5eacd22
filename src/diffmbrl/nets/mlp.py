"""Multilayer perceptrons as pytrees, acting on one input; callers vmap.

`diffmbrl.nets.ensemble` has the other layout: several small networks, a batch in columns.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby, pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

INITS = ("orthogonal", "uniform")  # of weights: `mlp` draws the former, `rpg.learner` the latter
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "identity": lambda x: x,
}


class Linear(eqx.Module):
    """An affine map x -> W x + b."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """W x + b."""
        return self.weight @ x + self.bias


class MLP(eqx.Module):
    """Affine layers with an activation between them and none after the last."""

    layers: tuple[Linear, ...]
    activation: str = eqx.field(static=True, default="relu")

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """The output for one input."""
        act = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = act(layer(x))
        return self.layers[-1](x)


def mlp(
    key: PRNGKeyArray,
    sizes: Sequence[int],
    *,
    activation: str = "relu",
    gain: float = math.sqrt(2),
    last_gain: float = 1.0,
    dtype: DTypeLike = float,
) -> MLP:
    """A network with layers of `sizes[0] -> sizes[1] -> ... -> sizes[-1]`.

    Biases are zero; all singular values of a weight equal its layer's gain.

    Args:
        key: its random key.
        sizes: widths, input and output included.
        activation: one of `ACTIVATIONS`.
        gain: of every layer but the last.
        last_gain: of the last layer (0.01 starts a policy or a value near zero).
        dtype: of the parameters.

    Raises:
        ValueError: fewer than two sizes, unknown activation.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: {list(sizes)} must name at least an input and an output width")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: {activation!r} is unknown; use {', '.join(ACTIVATIONS)}")
    shapes = [(n_out, n_in) for n_in, n_out in pairwise(sizes)]
    ends = list(accumulate(math.prod(shape) for shape in shapes))
    normal = jnp.split(jax.random.normal(key, (ends[-1],), dtype), ends[:-1])
    gains = [gain] * (len(shapes) - 1) + [last_gain]
    layers: list[Linear] = []
    for (shape, g), same in groupby(zip(shapes, gains, strict=True)):
        # Equal layers in a row as one loop: a factorisation takes long to compile.
        own = [draw.reshape(shape) for draw in normal[len(layers) :][: len(list(same))]]
        weights = jax.lax.map(_orthogonal, jnp.stack(own))
        layers += [Linear((g * w).astype(dtype), jnp.zeros(shape[0], dtype)) for w in weights]
    return MLP(tuple(layers), activation)


def _orthogonal(normal: Float[Array, "out in"]) -> Float[Array, "out in"]:
    """A uniformly random matrix with all singular values 1: Q of one of normal numbers.

    `jax.nn.initializers.orthogonal` is the same, but draws each matrix from a key of its own, and
    every draw takes long to compile.
    """
    n_out, n_in = normal.shape
    q, r = jnp.linalg.qr(normal if n_out >= n_in else normal.T)
    q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(q.dtype)[None]
    return q if n_out >= n_in else q.T
