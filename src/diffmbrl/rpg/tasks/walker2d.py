"""A two-legged robot in a plane that is to walk without falling."""

from diffmbrl.envs.mujoco import MuJoCo

LABEL = "Walker2d"
COLOR = 6
ORDER = 6
SOLVED = None  # gymnasium has no threshold


def environment() -> MuJoCo:
    """Gymnasium's Walker2d-v5."""
    return MuJoCo("Walker2d-v5")
