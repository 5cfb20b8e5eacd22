"""Gymnasium environments stepped on the host, with actions brought to [-1, 1]."""

import gymnasium
import numpy as np
from jaxtyping import Float

from diffmbrl.errors import ConfigError


class HostEnvironment:
    """A gymnasium environment with a continuous, bounded action space.

    Attributes:
        observation_dim: length of an observation.
        action_dim: length of an action.
        time_limit: steps after which gymnasium truncates an episode.
        terminates: taken to be so; gymnasium does not say.
    """

    terminates = True

    def __init__(self, name: str, reward_scale: float = 1.0):
        """Makes a registered environment.

        Raises:
            ConfigError: unknown name, or spaces that are not flat boxes with finite action bounds.
        """
        try:
            self._env = gymnasium.make(name)
        except gymnasium.error.Error as error:
            raise ConfigError(f"task = {name!r}: gymnasium cannot make it: {error}") from None
        actions, observations = self._env.action_space, self._env.observation_space
        if not isinstance(actions, gymnasium.spaces.Box):
            raise ConfigError(
                f"task = {name!r}: its actions are {actions}; reparameterization needs continuous "
                "ones, such as those of Pendulum-v1"
            )
        if not isinstance(observations, gymnasium.spaces.Box) or len(observations.shape) != 1:
            raise ConfigError(f"task = {name!r}: its observations are {observations}, not vectors")
        if not np.all(np.isfinite([actions.low, actions.high])):
            raise ConfigError(f"task = {name!r}: its actions have no bounds")
        self._low, self._high = actions.low, actions.high
        self.observation_dim, self.action_dim = observations.shape[0], actions.shape[0]
        self.time_limit = int((self._env.spec and self._env.spec.max_episode_steps) or 0)
        self.reward_scale = reward_scale
        if self.time_limit < 1:
            raise ConfigError(f"task = {name!r}: has no time limit")

    def reset(self, seed: int | None = None) -> Float[np.ndarray, " obs"]:
        """A first observation."""
        return np.asarray(self._env.reset(seed=seed)[0], np.float32)

    def step(
        self, action: Float[np.ndarray, " act"]
    ) -> tuple[Float[np.ndarray, " obs"], float, bool, bool]:
        """Next observation, reward, terminated, truncated."""
        scaled = self._low + 0.5 * (np.asarray(action) + 1) * (self._high - self._low)
        obs, reward, terminated, truncated, _ = self._env.step(scaled.astype(np.float32))
        return np.asarray(obs, np.float32), float(reward), bool(terminated), bool(truncated)
