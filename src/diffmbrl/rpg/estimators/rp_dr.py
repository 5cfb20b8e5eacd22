"""RP-DR: the derivative of an unroll whose noises are inferred from a real segment (SVG(inf))."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl.rpg.objective import Estimator, Objective, Segment, draw_noises, unroll

LABEL = "RP-DR"
COLOR = 2
ORDER = 2


def surrogate(
    objective: Objective, h: int, segment: Segment, key: PRNGKeyArray
) -> Float[Array, ""]:
    """One sample of J along the segment, to its episode's end; the last noise is drawn afresh."""
    drawn, _ = draw_noises(objective, h, segment, key)
    eps, xi = infer_noises(objective, h, segment, drawn)
    ends = jax.tree.map(lambda x: x[:h], segment.ends)
    return unroll(objective, segment.states[0], eps, xi, ends)


def infer_noises(
    objective: Objective, h: int, segment: Segment, drawn: Float[Array, "h+1 a"]
) -> tuple[Float[Array, "h+1 a"], Float[Array, "h s"]]:
    """Noises with which policy and model reproduce the first h steps of a segment.

    The last action's noise is `drawn[h]`: a segment of h steps has no action at its end.
    """
    s, a, s_next = segment.states[:h], segment.actions[:h], segment.states[1 : h + 1]
    policy, world = objective.policy, objective.world
    inferred = jax.vmap(lambda s, a: policy.infer(world.observe(s), a))(s, a)
    xi = jax.vmap(world.infer)(s, a, s_next)
    return jax.lax.stop_gradient((jnp.concatenate([inferred, drawn[h:]]), xi))


ESTIMATOR = Estimator(surrogate, infers=True)
