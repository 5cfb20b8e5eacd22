"""What collection and training know of a domain; each is an entry of `implicit.domains`."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float


class Domain(Protocol):
    """A domain of Gehring et al. 2021, section 4.

    Attributes:
        observation: names of the observation's columns in a dataset.
        gamma: discount factor.
        n_features: width of the feature vector.
        first_states_only: whether only the first states of trajectories are trained on.
    """

    @property
    def observation(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def gamma(self) -> float: ...  # noqa: D102

    @property
    def n_features(self) -> int: ...  # noqa: D102

    @property
    def first_states_only(self) -> bool: ...  # noqa: D102

    def features(self, observation: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Features of observations."""
        ...

    def collect(
        self,
        seeds: Sequence[int],
        epsilon: float,
        trajectories: int,
        steps: int,
        evaluation_steps: int,
    ) -> pd.DataFrame:
        """Training and evaluation sets of every seed, as rows (`rollouts.table`).

        Args:
            seeds: of the sets.
            epsilon: exploration of the behaviour policy.
            trajectories: how many each training set has.
            steps: of each trajectory, at most.
            evaluation_steps: of each evaluation set, where exact values are not known.
        """
        ...
