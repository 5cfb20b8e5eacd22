"""Multilayer perceptrons as pytrees, acting on one input; callers vmap.

`diffmbrl.nets.ensemble` has the other layout: several small networks, a batch in columns.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

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


def linear(
    key: PRNGKeyArray, n_in: int, n_out: int, *, gain: float = 1.0, dtype: DTypeLike = float
) -> Linear:
    """A layer with zero bias and a random weight whose singular values all equal `gain`."""
    weight = gain * jax.nn.initializers.orthogonal()(key, (n_out, n_in), dtype)
    return Linear(weight, jnp.zeros(n_out, dtype))


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

    Args:
        key: its random key; layer i uses `fold_in(key, i)`.
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
    gains = [gain] * (len(sizes) - 2) + [last_gain]
    kinds = list(zip(sizes[:-1], sizes[1:], gains, strict=True))
    layers: list[Linear] = []
    for (n_in, n_out, g), same in groupby(kinds):
        # Equal layers in a row as one loop: a draw and a factorisation each takes long to compile.
        own = len(layers) + jnp.arange(len(list(same)))
        made = jax.lax.map(
            lambda i, n=n_in, m=n_out, g=g: linear(
                jax.random.fold_in(key, i), n, m, gain=g, dtype=dtype
            ),
            own,
        )
        layers += [jax.tree.map(lambda x, i=i: x[i], made) for i in range(len(own))]
    return MLP(tuple(layers), activation)
