"""The interface of functional (differentiable, JAX) environments with continuous actions.

Actions lie in [-1, 1]; the environment scales them. Rewards and transitions are functions of the
observation alone, so that any stored observation can be stepped from and differentiated through.
"""

from typing import ClassVar, Protocol

from jaxtyping import Array, Float, PRNGKeyArray


class Environment(Protocol):
    """A deterministic environment as pure functions of one state.

    Attributes:
        observation_dim: length of an observation.
        action_dim: length of an action.
        time_limit: steps after which an episode is cut (truncated, not terminated).
        terminates: whether an episode can end by itself.
        reward_scale: factor that brings rewards to order 1 for learning.
    """

    observation_dim: ClassVar[int]
    action_dim: ClassVar[int]
    time_limit: ClassVar[int]
    terminates: ClassVar[bool]
    reward_scale: ClassVar[float]

    def reset(self, key: PRNGKeyArray) -> Float[Array, " obs"]:
        """A first observation."""
        ...

    def step(
        self, obs: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> tuple[Float[Array, " obs"], Float[Array, ""], Float[Array, ""]]:
        """Next observation, reward, and 1 where the episode terminates, else 0."""
        ...
