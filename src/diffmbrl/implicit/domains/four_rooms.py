"""Four rooms, explored around the optimal actions; its terminal state has no features."""

from diffmbrl.envs.four_rooms import TERMINAL, four_rooms
from diffmbrl.implicit.dense import DenseDomain
from diffmbrl.mdp.dense import greedy, optimal_q

LABEL = "Four rooms"
ORDER = 1
GAMMA = 0.9
LIMITS = (0.0, 50.0)  # of the final residual norm, figure A1
# The residual norm per unit of reward offset that no parameters can remove: the terminal state
# is predicted as 0, while an offset of 1 makes its value 1 / (1 - gamma).
FLOOR = 10.0

MDP = four_rooms()
DOMAIN = DenseDomain(MDP, lambda: greedy(optimal_q(MDP, 1e-6), 1e-5), n_features=TERMINAL)
