"""One gymnasium MuJoCo environment on the host, set to a state vector, stepped and read back."""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from jaxtyping import Float, Int

from diffmbrl.errors import ConfigError

Row = Float[np.ndarray, " n"]
# What changes of MuJoCo's integration state; no task has plugins, mocap bodies or applied forces,
# each step sets the controls, and nothing depends on the time.
PARTS = int(
    mujoco.mjtState.mjSTATE_QPOS
    | mujoco.mjtState.mjSTATE_QVEL
    | mujoco.mjtState.mjSTATE_ACT
    | mujoco.mjtState.mjSTATE_WARMSTART
)
DIFFERENCE = 3e-7  # of positions, velocities and actions, either side, in central differences
UNSTABLE = [
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
]


class Simulator:
    """A gymnasium environment as functions of state vectors; for one thread at a time.

    Attributes:
        observation_dim: length of an observation, the last part of a state.
        state_dim: length of a state.
        free: of how many numbers, the first ones of a state, the next state is a function: all
            but the solver's warm start, on which its solution does not depend, and the observation.
        action_dim: length of an action.
        time_limit: steps after which gymnasium truncates an episode.
    """

    def __init__(self, name: str, **options: Any):
        """Makes a registered task.

        Raises:
            ConfigError: unknown name, no MuJoCo task, or spaces that are not flat and bounded.
        """
        mujoco.set_mju_user_warning(_quiet)
        self.name = name
        env, self.time_limit = _made(name, options)
        self._env, self._model, self._data = env, env.model, env.data
        low, high = env.action_space.low, env.action_space.high
        self._middle, self._half = 0.5 * (low + high), 0.5 * (high - low)
        torso = getattr(env, "_main_body", None)
        self._torso = np.empty(0) if torso is None else self._data.body(torso).xpos[:2]
        kept, physics = len(self._torso), mujoco.mj_stateSize(self._model, PARTS)
        self._physics = slice(kept, kept + physics)
        self.free = kept + physics - self._model.nv
        self.observation_dim = env.observation_space.shape[0]
        self.state_dim = kept + physics + self.observation_dim
        self.action_dim = env.action_space.shape[0]
        self._check()
        self._warned = self._data.warning.number

    def reset(self, seeds: Int[np.ndarray, "*b"]) -> Float[np.ndarray, "*b n"]:
        """The states after gymnasium's `reset(seed)`."""
        rows = [self._read(self._env.reset(seed=int(seed))[0]) for seed in seeds.reshape(-1)]
        return np.stack(rows).reshape(*seeds.shape, self.state_dim)

    def steps(
        self, states: Float[np.ndarray, "*b n"], actions: Float[np.ndarray, "*b a"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states, rewards and terminations (0 or 1) of actions in [-1, 1].

        Raises:
            ConfigError: MuJoCo finds the state bad or its change too large.
        """
        lead = states.shape[:-1]
        flat = (x.reshape(-1, x.shape[-1]) for x in (states, actions))
        rows, *others = zip(*map(self._step, *flat), strict=True)
        rewards, ended = (np.array(x, float).reshape(lead) for x in others)
        return np.stack(rows).reshape(states.shape), rewards, ended

    def jacobians(
        self, states: Float[np.ndarray, "*b n"], actions: Float[np.ndarray, "*b a"]
    ) -> Float[np.ndarray, "*b m x"]:
        """Central differences of a step, in float64.

        Returns:
            Rows: next state, then reward. Columns: the `free` first numbers of the state, then
            the action. A quaternion's four numbers are varied like any others: a step is a
            function of all of them.
        """
        lead = states.shape[:-1]
        flat = (x.reshape(-1, x.shape[-1]) for x in (states, actions))
        return np.stack(list(map(self._jacobian, *flat))).reshape(*lead, self.state_dim + 1, -1)

    def _jacobian(self, state: Row, action: Row) -> Float[np.ndarray, "m x"]:
        def following(x: Row) -> Row:
            moved = np.concatenate([x[: self.free], state[self.free :]])
            after, reward, _ = self._step(moved, x[self.free :])
            return np.append(after, reward)

        x = np.concatenate([state[: self.free], action.astype(float)])
        shifts = DIFFERENCE * np.eye(len(x))
        columns = [(following(x + d) - following(x - d)) / (2 * DIFFERENCE) for d in shifts]
        return np.stack(columns, axis=1)

    def _step(self, state: Row, action: Row) -> tuple[Row, float, bool]:
        if not (np.isfinite(action).all() and np.isfinite(state).all()):
            return np.full_like(state, np.nan), np.nan, True
        mujoco.mj_setState(self._model, self._data, state[self._physics], PARTS)
        self._torso[:] = state[: len(self._torso)]
        obs, reward, ended, _, _ = self._env.step(self._middle + self._half * action)
        if self._warned[UNSTABLE].any():
            mujoco.mj_resetData(self._model, self._data)
            raise ConfigError(
                f"task = {self.name!r}: the simulation became unstable (MuJoCo: bad position, "
                "velocity or acceleration); lower the learning rates"
            )
        return self._read(obs), reward, ended

    def _read(self, obs: Row) -> Row:
        """The state that the environment is in."""
        row = np.empty(self.state_dim)
        row[: len(self._torso)] = self._torso
        mujoco.mj_getState(self._model, self._data, row[self._physics], PARTS)
        row[-len(obs) :] = obs
        return row

    def _check(self) -> None:
        """Refuses tasks whose state has parts that would be lost."""
        m = self._model
        constant = 1 + m.nu + m.nv + 6 * m.nbody + m.neq  # time, controls, applied forces, ...
        whole = mujoco.mj_stateSize(m, mujoco.mjtState.mjSTATE_INTEGRATION)
        if whole != mujoco.mj_stateSize(m, PARTS) + constant:
            raise ConfigError(
                f"task = {self.name!r}: its state has mocap bodies, plugins, delays or user data, "
                "which are not carried from step to step"
            )


def _made(name: str, options: dict[str, Any]) -> tuple[Any, int]:
    """The environment itself, without gymnasium's wrappers, and its time limit."""
    try:
        whole = gymnasium.make(name, **options)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"task = {name!r}: gymnasium cannot make it: {error}") from None
    env: Any = whole.unwrapped
    limit = whole.spec and whole.spec.max_episode_steps
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, gymnasium.spaces.Box):
        raise ConfigError(f"task = {name!r}: its actions are {actions}; they must be continuous")
    if not np.all(np.isfinite([actions.low, actions.high])):
        raise ConfigError(f"task = {name!r}: its actions have no bounds: {actions}")
    if not isinstance(observations, gymnasium.spaces.Box) or len(observations.shape) != 1:
        raise ConfigError(f"task = {name!r}: its observations are {observations}, not vectors")
    if not isinstance(env, MujocoEnv):
        raise ConfigError(f"task = {name!r}: is no MuJoCo task, such as Hopper-v5")
    if not limit:
        raise ConfigError(f"task = {name!r}: has no time limit")
    return env, limit


def _quiet(message: str) -> None:
    """MuJoCo's own warnings would be written to a file; `Simulator` reads their counters."""
