"""Models of an environment: next observation and reward from observation and action."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.agents.replay import Transition
from diffmbrl.keys import fold
from diffmbrl.nets import ensemble
from diffmbrl.nets.ensemble import Params

ACTIVATIONS = {"relu": jax.nn.relu, "leaky": jax.nn.leaky_relu}  # the latter of slope 0.01


@dataclass(frozen=True)
class Model:
    """Two networks of two hidden layers: next observation and reward.

    Attributes:
        n_obs: size of an observation.
        n_actions: number of actions.
        width: units in each hidden layer; few make the model misspecified.
        probabilistic: predict a Gaussian (mean and log standard deviation) and sample from it.
        dtype: of parameters and of the computation.
        activation: of the hidden units, one of `ACTIVATIONS`.
        frozen: networks (`dynamics`, `reward`) that stay as they were drawn.
    """

    n_obs: int
    n_actions: int
    width: int = 32
    probabilistic: bool = False
    dtype: Any = jnp.float64
    activation: str = "relu"
    frozen: tuple[str, ...] = ()

    def init(self, key: jax.Array) -> Params:
        """Fresh networks."""
        n_in, n_out = self.n_obs + self.n_actions, self.n_obs * (1 + self.probabilistic)
        hidden = (n_in, self.width, self.width)
        return {
            "dynamics": ensemble.init(fold(key, "dynamics"), (*hidden, n_out), 1, self.dtype),
            "reward": ensemble.init(fold(key, "reward"), (*hidden, 1), 1, self.dtype),
        }

    def predict(self, params: Params, batch: Transition) -> tuple[Array, Array, Array]:
        """Mean and log standard deviation (0 if deterministic) of s', and the reward."""
        x = jnp.concatenate([batch.obs, batch.action])
        activation = ACTIVATIONS[self.activation]
        out = ensemble.apply(params["dynamics"], x, activation)[0]
        reward = ensemble.apply(params["reward"], x, activation)[0, 0]
        if not self.probabilistic:
            return out, jnp.zeros((), self.dtype), reward
        mean, log_std = jnp.split(out, 2)
        return mean, jnp.clip(log_std, -5.0, 2.0), reward

    def dead(self, params: Params, batch: Transition) -> dict[str, Array]:
        """By network, the share of hidden units that are active nowhere in a batch."""
        x = jnp.concatenate([batch.obs, batch.action])
        activation = ACTIVATIONS[self.activation]
        return {name: ensemble.dead(params[name], x, activation) for name in params}

    def imagine(
        self, params: Params, batch: Transition, key: jax.Array
    ) -> tuple[Transition, Array]:
        """The batch with the model's next observation and reward, and its squared error."""
        mean, log_std, reward = self.predict(params, batch)
        mse = squared_error(mean, batch.obs_next)
        if self.probabilistic:
            noise = jax.random.normal(key, mean.shape, self.dtype)
            mean = mean + jnp.exp(log_std) * noise
        return batch._replace(obs_next=mean, reward=reward), mse

    def likelihood_loss(self, params: Params, batch: Transition) -> tuple[Array, Array]:
        """Squared error of next observation and reward (eq. 1), or the Gaussian's -log p.

        Returns:
            The loss and the next observation's squared error.
        """
        mean, log_std, reward = self.predict(params, batch)
        mse = squared_error(mean, batch.obs_next)
        fit = mse
        if self.probabilistic:
            z = (batch.obs_next - mean) * jnp.exp(-log_std)
            per_column = 0.5 * z**2 + log_std + 0.5 * jnp.log(2 * jnp.pi).astype(self.dtype)
            fit = jnp.mean(jnp.sum(per_column, axis=0))
        return fit + jnp.mean((reward - batch.reward) ** 2), mse


def squared_error(a: Float[Array, "n batch"], b: Float[Array, "n batch"]) -> Array:
    """E ||a - b||^2: summed over coordinates, averaged over the batch."""
    return jnp.mean(jnp.sum((a - b) ** 2, axis=0))
