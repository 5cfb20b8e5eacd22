"""Spectral normalisation: each chosen weight becomes target * W / sigma(W).

sigma(W), the largest singular value, is estimated by power iteration whose vectors are explicit
state beside the network; `exact` is its check. Which layers are normalised is an argument.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from diffmbrl.nets.mlp import MLP, Linear

PLACEMENTS = ("none", "model", "policy", "both")
LAYERS = ("hidden", "all")


class Vectors(eqx.Module):
    """Estimates of the leading singular vectors of one weight."""

    left: Float[Array, " out"]
    right: Float[Array, " in"]


def covers(placement: str, part: str) -> bool:
    """Whether a placement normalises a part (`model` or `policy`).

    Raises:
        ValueError: unknown placement.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"sn: {placement!r} is unknown; use one of {', '.join(PLACEMENTS)}")
    return placement in (part, "both")


def chosen(net: MLP, part: str, layers: str) -> tuple[bool, ...]:
    """Which layers of a part are normalised.

    `all`: every one. `hidden`, as the released program has it: of a policy those from hidden to
    hidden, of a model all but the last.

    Raises:
        ValueError: unknown choice of layers.
    """
    n = len(net.layers)
    if layers == "all":
        return (True,) * n
    if layers == "hidden":
        return (part == "model", *([True] * (n - 2)), False)[:n] if n > 1 else (False,)
    raise ValueError(f"sn_layers: {layers!r} is unknown; use one of {', '.join(LAYERS)}")


def start(net: MLP, key: PRNGKeyArray, iterations: int = 50) -> tuple[Vectors, ...]:
    """Power-iteration state for every layer, from random vectors."""
    sizes = [layer.bias.shape[0] for layer in net.layers]
    draw = jax.random.normal(key, (sum(sizes),), net.layers[0].weight.dtype)
    parts = jnp.split(draw, np.cumsum(sizes)[:-1])
    vectors = tuple(
        Vectors(_unit(left), _unit(layer.weight.T @ left))
        for layer, left in zip(net.layers, parts, strict=True)
    )
    return iterate(net, vectors, iterations)


def iterate(net: MLP, vectors: Sequence[Vectors], iterations: int = 1) -> tuple[Vectors, ...]:
    """Power iteration: v <- W'u / |W'u|, u <- Wv / |Wv|, layer by layer."""

    def once(_, vectors):
        return tuple(_power(layer, v) for layer, v in zip(net.layers, vectors, strict=True))

    return jax.lax.fori_loop(0, iterations, once, tuple(vectors))


def track(
    net: MLP,
    vectors: Sequence[Vectors],
    most: int,
    on: Bool[Array, ""] | bool = True,
    tolerance: float = 1e-5,
) -> tuple[Vectors, ...]:
    """Power iteration until no layer's estimate still grows by more than `tolerance` of itself.

    A fixed number falls behind where an update raises a new direction above the old one, and
    where many singular values lie close together. Each call starts a little off the old vectors,
    since from exactly there a new direction orthogonal to them would never be seen.

    Args:
        net: raw weights, after an update.
        vectors: state from before it.
        most: iterations after which to stop in any case.
        on: whether there is anything to track; if not, one iteration is made all the same.
        tolerance: relative growth of sigma(W) per iteration.
    """

    def estimate(vectors):
        return jnp.stack([sigma(*pair) for pair in zip(net.layers, vectors, strict=True)])

    def unfinished(state):
        _, before, now, count = state
        return jnp.any(now > (1 + tolerance) * before) & (count < most) & on

    def once(state):
        vectors, _, now, count = state
        vectors = tuple(_power(*pair) for pair in zip(net.layers, vectors, strict=True))
        return vectors, now, estimate(vectors), count + 1

    vectors = tuple(Vectors(_aside(v.left), v.right) for v in vectors)
    vectors = tuple(_power(*pair) for pair in zip(net.layers, vectors, strict=True))
    now = estimate(vectors)
    start = (vectors, jnp.zeros_like(now), jnp.maximum(now, 1e-6), 1)
    return jax.lax.while_loop(unfinished, once, start)[0]


def sigma(layer: Linear, vectors: Vectors) -> Float[Array, ""]:
    """u'Wv, the estimate of the largest singular value; its gradient is u v'."""
    left, right = jax.lax.stop_gradient((vectors.left, vectors.right))
    return left @ layer.weight @ right


def normalise(
    net: MLP,
    vectors: Sequence[Vectors],
    layers: Sequence[Bool[Array, ""] | bool],
    target: Float[Array, ""] | float = 1.0,
) -> MLP:
    """The network that is used: chosen weights W become target * W / sigma(W).

    Args:
        net: raw weights, which are trained; gradients flow through sigma(W) too.
        vectors: power-iteration state.
        layers: which layers to normalise; may be traced, so that one program serves all cases.
        target: the largest singular value they get, above 0.
    """

    def used(layer: Linear, v: Vectors, choose: Bool[Array, ""] | bool) -> Linear:
        scale = jnp.where(choose, target / sigma(layer, v), 1.0).astype(layer.weight.dtype)
        return eqx.tree_at(lambda x: x.weight, layer, scale * layer.weight)

    new = tuple(map(used, net.layers, vectors, layers))
    return eqx.tree_at(lambda x: x.layers, net, new)


def exact(net: MLP) -> Float[Array, " layers"]:
    """The largest singular value of each weight, by SVD."""
    return jnp.stack([jnp.linalg.norm(layer.weight, 2) for layer in net.layers])


def _power(layer: Linear, vectors: Vectors) -> Vectors:
    right = _unit(layer.weight.T @ vectors.left)
    return Vectors(_unit(layer.weight @ right), right)


def _aside(left: Float[Array, " out"]) -> Float[Array, " out"]:
    """A unit vector moved by 0.3 in a direction without structure, always the same one."""
    other = jnp.cos(jnp.arange(1, left.shape[0] + 1, dtype=left.dtype) ** 2)
    return _unit(left + 0.3 * _unit(other))


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(x.dtype).tiny)
