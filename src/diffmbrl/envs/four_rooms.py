"""Four rooms (Sutton, Precup & Singh 1999), as used by Gehring et al. 2021, section 4."""

import jax.numpy as jnp
import numpy as np

from diffmbrl.mdp.dense import DenseMDP

SIZE = 11
GOAL = (7, 1)
TERMINAL = SIZE * SIZE
GAMMA = 0.9
SLIP = 1 / 3
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
WALLS = frozenset(
    [(0, 5), (2, 5), (3, 5), (4, 5), (6, 4), (7, 4), (9, 4), (10, 4)]
    + [(5, column) for column in (0, 2, 3, 4, 5, 6, 7, 9, 10)]
)


def four_rooms() -> DenseMDP:
    """122 states (the 11 x 11 grid, walls included, and a terminal one), four actions, gamma 0.9.

    Actions are down, up, right, left; a blocked move stays. With probability 1/3 one of the
    other three actions happens instead. Any action at the goal pays 1 and ends in the
    absorbing terminal state.
    """
    landing = np.zeros((4, TERMINAL + 1), dtype=int)
    for row in range(SIZE):
        for column in range(SIZE):
            for action, (down, right) in enumerate(MOVES):
                to = (row + down, column + right)
                inside = 0 <= to[0] < SIZE and 0 <= to[1] < SIZE and to not in WALLS
                there = to if inside else (row, column)
                landing[action, _index(row, column)] = _index(*there)
    landing[:, [_index(*GOAL), TERMINAL]] = TERMINAL
    moved = np.eye(TERMINAL + 1)[landing]
    P = (1 - SLIP) * moved + SLIP / 3 * (moved.sum(axis=0) - moved)
    r = np.zeros((TERMINAL + 1, 4))
    r[_index(*GOAL)] = 1
    return DenseMDP(jnp.asarray(P), jnp.asarray(r), GAMMA)


def _index(row: int, column: int) -> int:
    return row * SIZE + column
