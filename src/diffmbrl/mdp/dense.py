"""Finite MDPs as dense arrays: Bellman operators, policy evaluation, optimal values."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class DenseMDP(eqx.Module):
    """A finite, discounted MDP.

    Attributes:
        P: P[a, s, s'] = probability of s' after action a in s; rows sum to 1.
        r: r[s, a] = expected reward of action a in s.
        gamma: discount factor, in [0, 1).
    """

    P: Float[Array, "a s s"]
    r: Float[Array, "s a"]
    gamma: float | Float[Array, ""]

    @property
    def n_states(self) -> int:
        """How many states the MDP has."""
        return self.r.shape[0]

    @property
    def n_actions(self) -> int:
        """How many actions each state has."""
        return self.r.shape[1]


def backup(mdp: DenseMDP, v: Float[Array, " s"]) -> Float[Array, "s a"]:
    """Action values one step ahead: q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) v(s')."""
    return mdp.r + mdp.gamma * jnp.einsum("ast,t->sa", mdp.P, v)


def soft_max(q: Float[Array, "*s a"], temperature: float | Array) -> Float[Array, "*s"]:
    """Log-sum-exp over actions, temperature * log sum_a exp(q_a / temperature)."""
    return temperature * jax.nn.logsumexp(q / temperature, axis=-1)


def bellman(mdp: DenseMDP, q: Float[Array, "s a"]) -> Float[Array, "s a"]:
    """Hard Bellman optimality operator: r + gamma P max_a' q."""
    return backup(mdp, q.max(axis=-1))


def soft_bellman(
    mdp: DenseMDP, q: Float[Array, "s a"], temperature: float | Array
) -> Float[Array, "s a"]:
    """Soft Bellman optimality operator: r + gamma P (temperature log sum exp(q / temperature)).

    (Nikishin et al. 2022, section 2.)
    """
    return backup(mdp, soft_max(q, temperature))


def policy_chain(
    mdp: DenseMDP, policy: Float[Array, "s a"]
) -> tuple[Float[Array, "s s"], Float[Array, " s"]]:
    """The Markov reward chain under a policy: its transition matrix and expected rewards."""
    return jnp.einsum("sa,ast->st", policy, mdp.P), jnp.einsum("sa,sa->s", policy, mdp.r)


def policy_values(mdp: DenseMDP, policy: Float[Array, "s a"]) -> Float[Array, " s"]:
    """Exact values of a policy, the solution of v = r_pi + gamma P_pi v.

    (Gehring et al. 2021, eq. 1.)
    """
    transition, reward = policy_chain(mdp, policy)
    return jnp.linalg.solve(jnp.eye(mdp.n_states) - mdp.gamma * transition, reward)


def expected_return(
    mdp: DenseMDP, policy: Float[Array, "s a"], start: Float[Array, " s"]
) -> Float[Array, ""]:
    """Expected discounted return of a policy from a start distribution."""
    return start @ policy_values(mdp, policy)


def optimal_q(mdp: DenseMDP, tolerance: float = 1e-10) -> Float[Array, "s a"]:
    """Optimal action values by value iteration, until no entry moves by more than `tolerance`."""

    def step(carry):
        q, _ = carry
        new = bellman(mdp, q)
        return new, jnp.max(jnp.abs(new - q))

    q, _ = jax.lax.while_loop(lambda c: c[1] > tolerance, step, (mdp.r, jnp.asarray(jnp.inf)))
    return q


def greedy(q: Float[Array, "s a"], tolerance: float = 0.0) -> Float[Array, "s a"]:
    """The greedy policy; actions within `tolerance` of the best share its probability equally."""
    best = (q >= q.max(axis=-1, keepdims=True) - tolerance).astype(q.dtype)
    return best / best.sum(axis=-1, keepdims=True)


def epsilon_greedy(policy: Float[Array, "s a"], epsilon: float) -> Float[Array, "s a"]:
    """Mixes a policy with the uniform one: (1 - epsilon) policy + epsilon uniform."""
    return (1 - epsilon) * policy + epsilon / policy.shape[-1]
