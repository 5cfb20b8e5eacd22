"""A pole to be balanced on a cart; it falls at 0.2 rad."""

from diffmbrl.envs.mujoco import MuJoCo

LABEL = "Inverted pendulum"
COLOR = 2
ORDER = 2
SOLVED = 950.0  # gymnasium's reward threshold


def environment() -> MuJoCo:
    """Gymnasium's InvertedPendulum-v5."""
    return MuJoCo("InvertedPendulum-v5")
