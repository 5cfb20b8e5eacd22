"""A four-legged robot that is to walk; observations of 27 numbers, without contact forces."""

from diffmbrl.envs.mujoco import MuJoCo

LABEL = "Ant"
COLOR = 7
ORDER = 7
SOLVED = 6000.0  # gymnasium's reward threshold


def environment() -> MuJoCo:
    """Gymnasium's Ant-v5."""
    return MuJoCo("Ant-v5", include_cfrc_ext_in_observation=False)
