"""A finite MDP as a gymnasium functional environment; `Chain` and `FourRooms` are two of them."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
from gymnasium.experimental.functional import FuncEnv

from diffmbrl.mdp.dense import DenseMDP


class DenseFunctional(FuncEnv[jax.Array, jax.Array, int, float, bool, Any, DenseMDP]):
    """Steps through a dense MDP; the observation is the state's index.

    Episodes start in any state, uniformly, and end only where the caller's time limit ends
    them: an absorbing state is a state like any other.
    """

    def __init__(self, mdp: DenseMDP, absorbing: int | None = None):
        """Wraps `mdp`; entering the state `absorbing`, if any, is reported as terminal."""
        self.mdp, self.absorbing = mdp, absorbing
        super().__init__()
        self.observation_space = gymnasium.spaces.Discrete(mdp.n_states)
        self.action_space = gymnasium.spaces.Discrete(mdp.n_actions)

    def get_default_params(self, **kwargs) -> DenseMDP:
        """The MDP that is stepped when a call names no other."""
        return self.mdp

    def initial(self, rng: jax.Array, params: DenseMDP | None = None) -> jax.Array:
        """Draws a start state, uniformly over all states."""
        return jax.random.choice(rng, (params or self.mdp).n_states)

    def transition(self, state, action, rng, params: DenseMDP | None = None) -> jax.Array:
        """Draws the next state from P[action, state]."""
        mdp = params or self.mdp
        return jax.random.choice(rng, mdp.n_states, p=mdp.P[action, state])

    def observation(self, state, rng=None, params: DenseMDP | None = None):
        """The state's index."""
        return state

    def reward(self, state, action, next_state, rng=None, params: DenseMDP | None = None):
        """The expected reward r[state, action]; rewards do not depend on the next state."""
        return (params or self.mdp).r[state, action]

    def terminal(self, state, rng=None, params: DenseMDP | None = None):
        """Whether the state is the absorbing one."""
        return jnp.asarray(False) if self.absorbing is None else state == self.absorbing
