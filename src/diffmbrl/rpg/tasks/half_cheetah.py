"""A two-legged robot in a plane that is to run; it cannot fall for good."""

from diffmbrl.envs.mujoco import MuJoCo

LABEL = "HalfCheetah"
COLOR = 5
ORDER = 5
SOLVED = 4800.0  # gymnasium's reward threshold


def environment() -> MuJoCo:
    """Gymnasium's HalfCheetah-v5."""
    return MuJoCo("HalfCheetah-v5", terminates=False)
