"""Estimators of the policy gradient through h steps of a model, one interface.

The objective (rpg, eq. of RP-DP; entropy and termination added as in SAC), g_i = prod_{j<i}
gamma (1 - d_j) with d_j the probability that step j ends the episode:

    J = E[ sum_{i<h} g_i (r(s_i, a_i) - alpha log pi(a_i|s_i))
           + g_h (Q(s_h, a_h) - alpha log pi(a_h|s_h)) ].

h counts model steps; h = 0 is SAC's own objective. A *world* has `step(s, a, noise)`,
`infer(s, a, s_next)`, `reward(s, a)`, `terminates(s, a, s_next)` and `noise_scale`, the standard
deviation of the noise that is added to each next state (0: deterministic); a *policy* has
`sample(s, noise) -> (a, log_prob)`, `log_density(s, noise)`, `infer(s, a)` and `noise_dim`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.errors import ConfigError

PyTree = Any
KINDS = ("rp_dp", "rp_dr", "lr")


class Segment(NamedTuple):
    """Consecutive real steps: states s_0 ... s_n and actions a_0 ... a_{n-1}."""

    states: Float[Array, "n+1 s"]
    actions: Float[Array, "n a"]


class Estimator(eqx.Module):
    """A way to estimate the policy gradient; differentiate `surrogate` by the policy.

    Attributes:
        kind: `rp_dp` (noises drawn afresh), `rp_dr` (noises inferred from a real segment, the
            last action's drawn afresh) or `lr` (likelihood ratio).
        h: number of model steps.
        gamma: discount.
        baseline: for `lr`, subtract the critic's value at an independent action.
    """

    kind: str = eqx.field(static=True)
    h: int = eqx.field(static=True)
    gamma: float = eqx.field(static=True)
    baseline: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"estimator = {self.kind!r}: unknown; use one of {', '.join(KINDS)}")
        check_horizon(self.h)

    def surrogate(
        self,
        policy: PyTree,
        world: PyTree,
        critic: PyTree,
        segment: Segment,
        key: PRNGKeyArray,
        alpha: Float[Array, ""] | float = 0.0,
    ) -> Float[Array, ""]:
        """A scalar whose gradient by the policy is one sample of the estimator.

        For `rp_dp` and `rp_dr` it is also one sample of J.
        """
        dtype = segment.states.dtype
        eps = jax.random.normal(keys.fold(key, "policy"), (self.h + 1, policy.noise_dim), dtype)
        xi = jax.random.normal(keys.fold(key, "model"), (self.h, segment.states.shape[1]), dtype)
        xi = world.noise_scale * xi
        if self.kind == "lr":
            other = jax.random.normal(keys.fold(key, "baseline"), eps.shape, dtype)
            return _likelihood_ratio(
                policy, world, critic, segment.states[0], eps, xi, other if self.baseline else None,
                self.gamma, alpha,
            )  # fmt: skip
        if self.kind == "rp_dr":
            eps, xi = infer_noise(policy, world, segment, self.h, eps)
        return unroll(policy, world, critic, segment.states[0], eps, xi, self.gamma, alpha)

    def gradient(self, policy, world, critic, segment, key, alpha=0.0) -> PyTree:
        """One sample of the gradient of J by the policy's parameters."""
        return eqx.filter_grad(self.surrogate)(policy, world, critic, segment, key, alpha)


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


def unroll(policy, world, critic, s0, eps, xi, gamma, alpha) -> Float[Array, ""]:
    """One sample of J along a model unroll driven by given noises, differentiable throughout.

    Args:
        policy: see the module.
        world: see the module.
        critic: Q(s, a).
        s0: first state.
        eps: policy noises, shape (h + 1, noise_dim).
        xi: model noises, shape (h, length of a state).
        gamma: discount.
        alpha: temperature.
    """

    def step(carry, noise):
        s, weight, total = carry
        a, log_prob = policy.sample(s, noise[0])
        total = total + weight * (world.reward(s, a) - alpha * log_prob)
        s_next = world.step(s, a, noise[1])
        weight = weight * gamma * (1 - world.terminates(s, a, s_next))
        return (s_next, weight.astype(s.dtype), total), None

    one, zero = jnp.ones((), s0.dtype), jnp.zeros((), s0.dtype)
    (s, weight, total), _ = jax.lax.scan(step, (s0, one, zero), (eps[:-1], xi))
    a, log_prob = policy.sample(s, eps[-1])
    return total + weight * (critic(s, a) - alpha * log_prob)


def infer_noise(policy, world, segment: Segment, h: int, eps) -> tuple[Array, Array]:
    """Noises with which policy and model reproduce the first h steps of a segment (SVG(inf)).

    The last action's noise is `eps[h]`: a segment of h steps has no action at its end.
    """
    s, a, s_next = segment.states[:h], segment.actions[:h], segment.states[1 : h + 1]
    inferred = jax.vmap(policy.infer)(s, a)
    xi = jax.vmap(world.infer)(s, a, s_next)
    return jax.lax.stop_gradient((jnp.concatenate([inferred, eps[h:]]), xi))


def _likelihood_ratio(policy, world, critic, s0, eps, xi, other, gamma, alpha) -> Float[Array, ""]:
    """sum_i g_i log pi(a_i|s_i) (G_i - b_i), G_i the (soft) return from step i, all else fixed.

    G_i = r_i - alpha log pi_i + gamma (1 - d_i) G_{i+1}, G_h = Q(s_h, a_h) - alpha log pi_h;
    b_i = Q(s_i, a') - alpha log pi(a'|s_i) with a' drawn independently of a_i.
    """

    def step(carry, noise):
        s, weight = carry
        a, log_prob = policy.sample(s, noise[0])
        s_next = world.step(s, a, noise[1])
        go_on = gamma * (1 - world.terminates(s, a, s_next))
        row = (s, weight, world.reward(s, a) - alpha * log_prob, go_on)
        return (s_next, (weight * go_on).astype(s.dtype)), row

    one = jnp.ones((), s0.dtype)
    (s, weight), rows = jax.lax.scan(step, (s0, one), (eps[:-1], xi))
    a, log_prob = policy.sample(s, eps[-1])
    last = critic(s, a) - alpha * log_prob

    def back(g_next, row):
        g = row[0] + row[1] * g_next
        return g, g

    _, returns = jax.lax.scan(back, last, rows[2:], reverse=True)
    states, weights, returns = (
        jnp.concatenate([x, y[None]]) for x, y in ((rows[0], s), (rows[1], weight), (returns, last))
    )
    if other is not None:

        def baseline(s, noise):
            a, log_prob = policy.sample(s, noise)
            return critic(s, a) - alpha * log_prob

        returns = returns - jax.vmap(baseline)(states, other)
    states, weights, returns = jax.lax.stop_gradient((states, weights, returns))
    return jnp.sum(weights * returns * jax.vmap(policy.log_density)(states, eps))
