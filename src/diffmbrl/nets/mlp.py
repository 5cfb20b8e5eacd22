"""Multilayer perceptrons as pytrees, acting on one input; callers vmap."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

INITS = ("orthogonal", "uniform")
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
    key: PRNGKeyArray,
    n_in: int,
    n_out: int,
    *,
    gain: float = 1.0,
    init: str = "orthogonal",
    dtype: DTypeLike = float,
) -> Linear:
    """A layer with zero bias and random weights.

    Args:
        key: its random key.
        n_in: width of the input.
        n_out: width of the output.
        gain: `orthogonal`: every singular value; `uniform`: factor on the bound.
        init: `orthogonal`, or `uniform` in +-gain / sqrt(n_in) as common libraries default to.
        dtype: of the parameters.

    Raises:
        ValueError: unknown init.
    """
    if init == "orthogonal":
        weight = gain * jax.nn.initializers.orthogonal()(key, (n_out, n_in), dtype)
    elif init == "uniform":
        bound = gain / math.sqrt(n_in)
        weight = jax.random.uniform(key, (n_out, n_in), dtype, -bound, bound)
    else:
        raise ValueError(f"init: {init!r} is unknown; use one of {', '.join(INITS)}")
    return Linear(weight, jnp.zeros(n_out, dtype))


def mlp(
    key: PRNGKeyArray,
    sizes: Sequence[int],
    *,
    activation: str = "relu",
    init: str = "orthogonal",
    gain: float = math.sqrt(2),
    last_gain: float = 1.0,
    dtype: DTypeLike = float,
) -> MLP:
    """A network with layers of `sizes[0] -> sizes[1] -> ... -> sizes[-1]`.

    Args:
        key: its random key; layer i uses `fold_in(key, i)`.
        sizes: widths, input and output included.
        activation: one of `ACTIVATIONS`.
        init: of the weights, see `linear`.
        gain: of every layer but the last.
        last_gain: of the last layer (0.01 starts a policy or a value near zero).
        dtype: of the parameters.

    Raises:
        ValueError: fewer than two sizes, unknown activation or init.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: {list(sizes)} must name at least an input and an output width")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: {activation!r} is unknown; use {', '.join(ACTIVATIONS)}")
    gains = [gain] * (len(sizes) - 2) + [last_gain]
    return MLP(
        tuple(
            linear(jax.random.fold_in(key, i), n_in, n_out, gain=g, init=init, dtype=dtype)
            for i, (n_in, n_out, g) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True))
        ),
        activation,
    )
