"""The objective J of a policy through h steps of a model, and what an estimator of its gradient is.

With g_i = prod_{j<i} gamma (1 - d_j) and d_j the probability that step j ends the episode (rpg,
equation of RP-DP; entropy and termination added as in SAC):

    J = E[ sum_{i<h} g_i (r(s_i, a_i) - alpha log pi(a_i|s_i))
           + g_h (Q(s_h, a_h) - alpha log pi(a_h|s_h)) ].

h counts model steps; h = 0 is SAC's own objective. A *world* has `observe(s)`, what policy and
critic see of its state, `transition(s, a, noise) -> (s_next, reward, ends)`,
`infer(s, a, s_next)` and `noise_scale`, the standard deviation of the noise that is added to
each next state (0: deterministic); a *policy* has `sample(s, noise) -> (a, log_prob)`,
`log_density(s, noise)`, `infer(s, a)` and `noise_dim`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.errors import ConfigError

PyTree = Any


class Ends(NamedTuple):
    """Where the episode of a segment's first step ends; all zeros and ones where it goes on.

    Attributes:
        terminated: 1 where a step ended its episode by itself.
        within: 1 for the steps of that episode, 0 for those after its end.
    """

    terminated: Float[Array, " n"]
    within: Float[Array, " n"]


class Segment(NamedTuple):
    """Real steps: states s_0 ... s_n, actions a_0 ... a_{n-1}, and where the episode ends."""

    states: Float[Array, "n+1 s"]
    actions: Float[Array, "n a"]
    ends: Ends


def whole(states: Float[Array, "n+1 s"], actions: Float[Array, "n a"]) -> Segment:
    """A segment of an episode that goes on after it."""
    zeros = jnp.zeros(actions.shape[0], states.dtype)
    return Segment(states, actions, Ends(zeros, 1 - zeros))


class Objective(NamedTuple):
    """What J is made of.

    Attributes:
        policy: see the module.
        world: see the module.
        critic: Q(s, a).
        gamma: discount.
        alpha: temperature.
    """

    policy: PyTree
    world: PyTree
    critic: PyTree
    gamma: Float[Array, ""] | float
    alpha: Float[Array, ""] | float = 0.0

    def gradient(self, sample: Callable[..., Float[Array, ""]], *arguments: PyTree) -> PyTree:
        """The gradient of `sample(objective, *arguments)` by the policy's parameters."""

        def value(policy):
            return sample(self._replace(policy=policy), *arguments)

        return eqx.filter_grad(value)(self.policy)


@dataclass(frozen=True)
class Estimator:
    """A way to estimate the gradient of J by the policy.

    Attributes:
        surrogate: `(objective, h, segment, key)` -> a scalar whose gradient by the policy is one
            sample of the estimator; None for SAC, which has no model to unroll.
        infers: whether the noises of all h steps are inferred from a real segment of h steps.
    """

    surrogate: Callable[[Objective, int, Segment, PRNGKeyArray], Float[Array, ""]] | None
    infers: bool = False

    def gradient(self, objective: Objective, h: int, segment: Segment, key: PRNGKeyArray) -> PyTree:
        """One sample of the gradient of J by the policy's parameters."""
        assert self.surrogate is not None, "SAC's own objective has no sample of a model"
        return objective.gradient(self.surrogate, h, segment, key)


def check_horizon(h: int, longest_segment: int | None = None) -> None:
    """Refuses horizons that cannot be.

    Raises:
        ConfigError: h below 0 or not whole, or longer than the longest stored segment.
    """
    if isinstance(h, bool) or not isinstance(h, int) or h < 0:
        raise ConfigError(f"horizon = {h!r}: must be a whole number of model steps, at least 0")
    if longest_segment is not None and h > longest_segment:
        raise ConfigError(
            f"horizon = {h}: longer than any stored segment ({longest_segment} steps); "
            "lower it or store longer episodes"
        )


def draw_noises(
    objective: Objective, h: int, segment: Segment, key: PRNGKeyArray
) -> tuple[Float[Array, "h+1 a"], Float[Array, "h s"]]:
    """Fresh noises of the policy and of the model for an unroll from a segment's first state."""
    dtype = objective.world.noise_scale.dtype
    eps = jax.random.normal(keys.fold(key, "policy"), (h + 1, objective.policy.noise_dim), dtype)
    scale = objective.world.noise_scale
    return eps, scale * jax.random.normal(keys.fold(key, "model"), (h, *scale.shape), dtype)


def unroll(
    objective: Objective,
    s0: Float[Array, " s"],
    eps: Float[Array, "h+1 a"],
    xi: Float[Array, "h s"],
    ends: Ends | None = None,
) -> Float[Array, ""]:
    """One sample of J: an unroll driven by given noises, differentiable throughout.

    Args:
        objective: what J is made of.
        s0: first state.
        eps: noises of the policy; their number sets h.
        xi: noises of the model, added to each next state.
        ends: of the h steps where they really ended, in place of the world's probabilities: a
            step that terminated leaves no weight, and after a time limit there are no steps.
    """
    policy, world, critic, gamma, alpha = objective

    def step(carry, row):
        s, weight, total = carry
        eps, xi, end = row
        a, log_prob = policy.sample(world.observe(s), eps)
        s_next, reward, over = world.transition(s, a, xi)
        over = over if end is None else end.terminated
        total = total + weight * (reward - alpha * log_prob)
        new = s_next, (weight * gamma * (1 - over)).astype(eps.dtype), total
        if end is not None:
            new = jax.tree.map(lambda x, before: jnp.where(end.within > 0, x, before), new, carry)
        return new, None

    one, zero = jnp.ones((), eps.dtype), jnp.zeros((), eps.dtype)
    (s, weight, total), _ = jax.lax.scan(step, (s0, one, zero), (eps[:-1], xi, ends))
    seen = world.observe(s)
    a, log_prob = policy.sample(seen, eps[-1])
    return total + weight * (critic(seen, a) - alpha * log_prob)
