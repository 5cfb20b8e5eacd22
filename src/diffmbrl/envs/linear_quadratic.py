"""Linear-quadratic systems, on which returns and policy gradients have closed forms.

s' = A s + B a + noise,   r = -(s'Qs + a'Ra),   a = K s + exp(log_std) eps,
critic Q(s, a) = -[s a] H [s a]',   each step ends the episode with probability `ends`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffmbrl import keys


class System(eqx.Module):
    """Dynamics, reward and termination; `noise_scale` is the standard deviation of the noise."""

    A: Float[Array, "s s"]
    B: Float[Array, "s a"]
    Q: Float[Array, "s s"]
    R: Float[Array, "a a"]
    noise_scale: Float[Array, " s"]
    ends: Float[Array, ""]

    def observe(self, s):
        """The state itself."""
        return s

    def transition(self, s, a, noise):
        """Next state, reward, probability of termination."""
        s_next = self.step(s, a, noise)
        return s_next, self.reward(s, a), self.terminates(s, a, s_next)

    def step(self, s, a, noise):
        """S' = A s + B a + noise."""
        return self.A @ s + self.B @ a + noise

    def infer(self, s, a, s_next):
        """The noise with which `step` gives s_next."""
        return s_next - self.A @ s - self.B @ a

    def reward(self, s, a):
        """-(s'Qs + a'Ra)."""
        return -(s @ self.Q @ s + a @ self.R @ a)

    def terminates(self, s, a, s_next):
        """Probability that the episode ends with this step."""
        return self.ends


class LinearPolicy(eqx.Module):
    """a = K s + exp(log_std) eps."""

    K: Float[Array, "a s"]
    log_std: Float[Array, " a"]

    @property
    def noise_dim(self) -> int:
        """How many numbers drive one action."""
        return self.log_std.shape[0]

    def sample(self, s, noise):
        """Action and its log-probability."""
        a = self.K @ s + jnp.exp(self.log_std) * noise
        return a, self._log_prob(s, a)

    def log_density(self, s, noise):
        """Log-density at the action that a noise gives, that action held fixed."""
        return self._log_prob(s, jax.lax.stop_gradient(self.sample(s, noise)[0]))

    def infer(self, s, a):
        """The eps with which `sample` gives a."""
        return (a - self.K @ s) * jnp.exp(-self.log_std)

    def _log_prob(self, s, a):
        return jnp.sum(jax.scipy.stats.norm.logpdf(a, self.K @ s, jnp.exp(self.log_std)))


class QuadraticCritic(eqx.Module):
    """Q(s, a) = -[s a] H [s a]'."""

    H: Float[Array, "sa sa"]

    def __call__(self, s, a):
        """The value of an action."""
        x = jnp.concatenate([s, a])
        return -x @ self.H @ x


def random_system(
    key: PRNGKeyArray, n: int, m: int, *, radius: float, noise: float = 0.1, ends: float = 0.0
) -> tuple[System, LinearPolicy]:
    """A random system and policy whose closed loop A + BK has every singular value `radius`."""
    closed = radius * jax.random.orthogonal(keys.fold(key, "closed"), n)
    B = jax.random.normal(keys.fold(key, "B"), (n, m)) / jnp.sqrt(n)
    K = 0.3 * jax.random.normal(keys.fold(key, "K"), (m, n))
    system = System(
        closed - B @ K, B, jnp.eye(n), 0.1 * jnp.eye(m), jnp.full(n, noise), jnp.asarray(ends)
    )
    return system, LinearPolicy(K, jnp.full(m, jnp.log(0.3)))


def true_critic(system: System, policy: LinearPolicy, gamma) -> QuadraticCritic:
    """The policy's own Q up to a constant: H from P = Q + K'RK + gamma (A+BK)'P(A+BK)."""
    discount = gamma * (1 - system.ends)
    closed = system.A + system.B @ policy.K
    n = closed.shape[0]
    stage = system.Q + policy.K.T @ system.R @ policy.K
    matrix = jnp.eye(n * n) - discount * jnp.kron(closed.T, closed.T)
    P = jnp.linalg.solve(matrix, stage.reshape(-1)).reshape(n, n)
    A, B = system.A, system.B
    top = jnp.concatenate([system.Q + discount * A.T @ P @ A, discount * A.T @ P @ B], axis=1)
    low = jnp.concatenate([discount * B.T @ P @ A, system.R + discount * B.T @ P @ B], axis=1)
    return QuadraticCritic(jnp.concatenate([top, low]))


def objective(
    system: System,
    policy: LinearPolicy,
    critic: QuadraticCritic,
    second_moment: Float[Array, "s s"],
    *,
    h: int,
    gamma: Float[Array, ""] | float,
    alpha: float = 0.0,
) -> Float[Array, ""]:
    """E[sum_{i<h} g^i (r_i - alpha log pi_i) + g^h (Q(s_h, a_h) - alpha log pi_h)], exactly.

    g = gamma (1 - ends); `second_moment` is E[s_0 s_0'].
    """
    g, S = gamma * (1 - system.ends), jnp.diag(jnp.exp(2 * policy.log_std))
    M, total, K = second_moment, jnp.zeros(()), policy.K
    entropy = jnp.sum(policy.log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e))
    for i in range(h):
        reward = -jnp.trace(system.Q @ M) - jnp.trace(system.R @ (K @ M @ K.T + S))
        total += g**i * (reward + alpha * entropy)
        closed = system.A + system.B @ K
        M = closed @ M @ closed.T + system.B @ S @ system.B.T + jnp.diag(system.noise_scale**2)
    joint = jnp.block([[M, M @ K.T], [K @ M, K @ M @ K.T + S]])
    return total + g**h * (alpha * entropy - jnp.trace(critic.H @ joint))


def gradient(
    system: System,
    policy: LinearPolicy,
    critic: QuadraticCritic,
    second_moment: Float[Array, "s s"],
    *,
    h: Int[Array, ""] | int,
    gamma: Float[Array, ""] | float,
    alpha: float = 0.0,
    longest: int | None = None,
) -> LinearPolicy:
    """The closed-form gradient of `objective`, by cost-to-go matrices P_i backward in time.

    dJ/dK = -2 sum_{i<h} g^i [R K + g B'P_{i+1}(A + BK)] M_i - 2 g^h [H_as + H_aa K] M_h,
    dJ/d log_std = -2 std^2 [sum_{i<h} g^i diag(R + g B'P_{i+1}B) + g^h diag(H_aa)]
                   + alpha sum_{i<=h} g^i.

    With `longest`, h may be traced and be anything up to that.
    """
    steps = jnp.arange(h if longest is None else longest)
    g, K, n = gamma * (1 - system.ends), policy.K, policy.K.shape[1]
    closed, var = system.A + system.B @ K, jnp.exp(2 * policy.log_std)
    push = system.B @ jnp.diag(var) @ system.B.T + jnp.diag(system.noise_scale**2)
    H_ss, H_as, H_aa = critic.H[:n, :n], critic.H[n:, :n], critic.H[n:, n:]

    def forward(M, i):
        return jnp.where(i < h, closed @ M @ closed.T + push, M), M

    def backward(carry, row):
        (P, d_K, d_var), (M, i) = carry, row
        new = (
            system.Q + K.T @ system.R @ K + g * closed.T @ P @ closed,
            d_K + g**i * (system.R @ K + g * system.B.T @ P @ closed) @ M,
            d_var + g**i * jnp.diag(system.R + g * system.B.T @ P @ system.B),
        )
        return jax.tree.map(lambda x, before: jnp.where(i < h, x, before), new, carry), None

    last, moments = jax.lax.scan(forward, second_moment, steps)
    P = H_ss + H_as.T @ K + K.T @ H_as + K.T @ H_aa @ K
    start = (P, g**h * (H_as + H_aa @ K) @ last, g**h * jnp.diag(H_aa))
    (_, d_K, d_var), _ = jax.lax.scan(backward, start, (moments, steps), reverse=True)
    entropy = alpha * (jnp.sum(jnp.where(steps < h, g**steps, 0)) + g**h)
    return LinearPolicy(-2 * d_K, -2 * var * d_var + entropy)
