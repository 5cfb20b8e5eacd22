"""The likelihood ratio: scores of the drawn actions, weighted by the return that follows them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.rpg.objective import Estimator, Objective, Segment, draw_noises

LABEL = "likelihood ratio"
COLOR = 4
ORDER = 3


def surrogate(
    objective: Objective, h: int, segment: Segment, key: PRNGKeyArray
) -> Float[Array, ""]:
    """sum_i g_i log pi(a_i|s_i) (G_i - b_i), all but the scores held fixed.

    G_i = r_i - alpha log pi_i + gamma (1 - d_i) G_{i+1}, G_h = Q(s_h, a_h) - alpha log pi_h;
    b_i = Q(s_i, a') - alpha log pi(a'|s_i) with a' drawn independently of a_i.
    """
    eps, xi = draw_noises(objective, h, segment, key)
    other = jax.random.normal(keys.fold(key, "baseline"), eps.shape, eps.dtype)
    states, weights, returns = _returns(objective, segment.states[0], eps, xi)
    returns = returns - jax.vmap(lambda s, noise: _soft_value(objective, s, noise))(states, other)
    states, weights, returns = jax.lax.stop_gradient((states, weights, returns))
    return jnp.sum(weights * returns * jax.vmap(objective.policy.log_density)(states, eps))


def _returns(objective: Objective, s0, eps, xi) -> tuple[Array, Array, Array]:
    """Of each of the h + 1 steps of an unroll: observed state, weight g_i and return G_i."""
    policy, world, _, gamma, alpha = objective

    def step(carry, noise):
        s, weight = carry
        seen = world.observe(s)
        a, log_prob = policy.sample(seen, noise[0])
        s_next, reward, ends = world.transition(s, a, noise[1])
        go_on = gamma * (1 - ends)
        row = (seen, weight, reward - alpha * log_prob, go_on)
        return (s_next, (weight * go_on).astype(eps.dtype)), row

    def back(g_next, row):
        g = row[0] + row[1] * g_next
        return g, g

    one = jnp.ones((), eps.dtype)
    (s, weight), (states, weights, *rows) = jax.lax.scan(step, (s0, one), (eps[:-1], xi))
    s = world.observe(s)
    last = _soft_value(objective, s, eps[-1])
    _, returns = jax.lax.scan(back, last, tuple(rows), reverse=True)
    pairs = ((states, s), (weights, weight), (returns, last))
    states, weights, returns = (jnp.concatenate([x, y[None]]) for x, y in pairs)
    return states, weights, returns


def _soft_value(objective: Objective, s, noise) -> Float[Array, ""]:
    """Q(s, a) - alpha log pi(a|s) at the action that a noise gives."""
    a, log_prob = objective.policy.sample(s, noise)
    return objective.critic(s, a) - objective.alpha * log_prob


ESTIMATOR = Estimator(surrogate)
