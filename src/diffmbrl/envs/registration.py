"""Registers our environments with gymnasium, which loads no plugins: `diffmbrl.envs` calls this."""

from gymnasium.envs.registration import register

LIMITS = {"Chain": 100, "FourRooms": 80, "MountainCar": 200}


def register_all() -> None:
    """Registers diffmbrl/<name>-v0; nothing is imported until one is made."""
    makers = {
        "Chain": "make_chain",
        "FourRooms": "make_four_rooms",
        "MountainCar": "make_mountain_car",
    }
    for name, maker in makers.items():
        register(
            id=f"diffmbrl/{name}-v0",
            entry_point=f"diffmbrl.envs.gym:{maker}",
            max_episode_steps=LIMITS[name],
        )
