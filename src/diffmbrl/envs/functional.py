"""The interface of functional (JAX) environments with continuous actions.

A state is one array that decides all that follows; what an agent sees of it is the observation.
Actions lie in [-1, 1]; the environment scales them. Steps are deterministic and differentiable.
"""

from typing import Protocol

from jaxtyping import Array, Float, PRNGKeyArray


class Environment(Protocol):
    """A deterministic environment as pure functions of one state."""

    @property
    def observation_dim(self) -> int:
        """Length of an observation."""
        ...

    @property
    def state_dim(self) -> int:
        """Length of a state; 0 where the observation is the state."""
        ...

    @property
    def action_dim(self) -> int:
        """Length of an action."""
        ...

    @property
    def time_limit(self) -> int:
        """Steps after which an episode is cut (truncated, not terminated)."""
        ...

    @property
    def terminates(self) -> bool:
        """Whether an episode can end by itself."""
        ...

    @property
    def reward_scale(self) -> float:
        """Factor that brings rewards to order 1 for learning."""
        ...

    def reset(self, key: PRNGKeyArray) -> Float[Array, " state"]:
        """A first state."""
        ...

    def observe(self, state: Float[Array, " state"]) -> Float[Array, " obs"]:
        """What an agent sees of a state."""
        ...

    def step(
        self, state: Float[Array, " state"], action: Float[Array, " act"]
    ) -> tuple[Float[Array, " state"], Float[Array, ""], Float[Array, ""]]:
        """Next state, reward, and 1 where the episode terminates, else 0."""
        ...
