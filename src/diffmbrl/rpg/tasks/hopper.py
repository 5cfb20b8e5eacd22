"""A one-legged robot that is to hop forward without falling."""

from diffmbrl.envs.mujoco import MuJoCo

LABEL = "Hopper"
COLOR = 4
ORDER = 4
SOLVED = 3800.0  # gymnasium's reward threshold


def environment() -> MuJoCo:
    """Gymnasium's Hopper-v5."""
    return MuJoCo("Hopper-v5")
