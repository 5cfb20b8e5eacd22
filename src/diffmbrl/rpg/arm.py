"""What the runs of one sweep differ in, and first weights that are the same function in all."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.nets import mlp as nets
from diffmbrl.nets import spectral


class Arm(NamedTuple):
    """One way to train; leaves may be traced, so that the runs of one program can differ.

    Attributes:
        model: whether the model's layers are spectrally normalised.
        policy: whether the policy's are.
        every: whether all layers are meant, else the hidden ones (`nets.spectral.chosen`).
        target: largest singular value of a normalised layer.
        uniform: whether hidden weights start from a uniform distribution, else orthogonal.
        rate: Adam's rate of the actor.
        clip: largest norm of the actor's gradient; infinite for none.
    """

    model: Bool[Array, ""]
    policy: Bool[Array, ""]
    every: Bool[Array, ""]
    target: Float[Array, ""]
    uniform: Bool[Array, ""]
    rate: Float[Array, ""]
    clip: Float[Array, ""]


def plain() -> Arm:
    """No normalisation, orthogonal first weights, no clipping."""
    no, one = jnp.asarray(False), jnp.float32(1)
    return Arm(no, no, no, one, no, jnp.float32(1e-3), jnp.float32(jnp.inf))


def layers(net: nets.MLP, part: str, arm: Arm) -> list[Bool[Array, ""]]:
    """Which layers of a part (`model` or `policy`) the arm means."""
    return [arm.every | hidden for hidden in spectral.chosen(net, part, "hidden")]


def start_weights(net: nets.MLP, part: str, key: PRNGKeyArray, arm: Arm) -> nets.MLP:
    """Weights with singular values at the target: all (orthogonal) or the largest one (uniform).

    A plain and a normalised run of one seed and choice of layers so start as the same function.

    Args:
        net: with orthogonal weights.
        part: `model` or `policy`.
        key: of the learner.
        arm: of the run.
    """
    sizes = [layer.weight.size for layer in net.layers]
    numbers = (sum(sizes),)
    draws = jax.random.uniform(keys.fold(key, part, "uniform"), numbers, jnp.float32, -1, 1)
    parts = jnp.split(draws, np.cumsum(sizes)[:-1])

    def start(layer, draw, choose):
        weight = layer.weight
        draw = draw.reshape(weight.shape)
        unit = jnp.where(arm.uniform, draw / jnp.linalg.norm(draw, 2), weight / _norm(weight))
        new = jnp.where(choose, arm.target * unit, weight).astype(weight.dtype)
        return eqx.tree_at(lambda x: x.weight, layer, new)

    chosen = layers(net, part, arm)
    new = tuple(start(*one) for one in zip(net.layers, parts, chosen, strict=True))
    return eqx.tree_at(lambda n: n.layers, net, new)


def _norm(orthogonal: Float[Array, "out in"]) -> Float[Array, ""]:
    """The singular value of a multiple of an orthogonal matrix."""
    return jnp.linalg.norm(orthogonal) / jnp.sqrt(float(min(orthogonal.shape)))
