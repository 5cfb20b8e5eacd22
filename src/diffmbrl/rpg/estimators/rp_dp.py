"""RP-DP: the derivative of an unroll whose noises are drawn afresh."""

from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl.rpg.objective import Estimator, Objective, Segment, draw_noises, unroll

LABEL = "RP-DP"
COLOR = 0
ORDER = 1


def surrogate(
    objective: Objective, h: int, segment: Segment, key: PRNGKeyArray
) -> Float[Array, ""]:
    """One sample of J from the segment's first state."""
    eps, xi = draw_noises(objective, h, segment, key)
    return unroll(objective, segment.states[0], eps, xi)


ESTIMATOR = Estimator(surrogate)
