"""Two poles, one on the other, to be balanced on a cart."""

from diffmbrl.envs.mujoco import MuJoCo

LABEL = "Inverted double pendulum"
COLOR = 3
ORDER = 3
SOLVED = 9100.0  # gymnasium's reward threshold


def environment() -> MuJoCo:
    """Gymnasium's InvertedDoublePendulum-v5."""
    return MuJoCo("InvertedDoublePendulum-v5", reward_scale=0.1)
