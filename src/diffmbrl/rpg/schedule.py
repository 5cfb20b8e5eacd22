"""How long a run of training is, and what it records."""

from typing import NamedTuple

from diffmbrl.errors import ConfigError


class Schedule(NamedTuple):
    """How long a run is, in environment steps; all counts are static.

    Attributes:
        steps: of the whole run.
        random_steps: taken first, with uniform actions.
        update_every: steps between two updates.
        evaluate_every: steps between two evaluations.
        episodes: per evaluation.
        snapshots: how many snapshots follow the first one, evenly spaced; 0 for none at all.
        stored_segments: how many real segments a snapshot holds.
        stored_steps: their length.
        lanes: runs that a CPU trains side by side, at most.
    """

    steps: int
    random_steps: int
    update_every: int
    evaluate_every: int
    episodes: int
    snapshots: int
    stored_segments: int
    stored_steps: int
    lanes: int = 1

    @property
    def segments(self) -> int:
        """Parts that training is cut into, at its snapshots."""
        return max(1, self.snapshots)

    @property
    def snapshot_steps(self) -> list[int]:
        """Environment steps at which snapshots are taken."""
        if not self.snapshots:
            return []
        every = (self.steps - self.random_steps) // self.snapshots
        return [self.random_steps + i * every for i in range(self.snapshots + 1)]

    @property
    def evaluations(self) -> int:
        """Evaluations in each segment."""
        return (self.steps - self.random_steps) // self.evaluate_every // self.segments

    def check(self) -> None:
        """Refuses schedules that do not fit together.

        Raises:
            ConfigError: the first count that does not fit.
        """
        learning_steps = self.steps - self.random_steps
        whole = [
            ("schedule.evaluate_every", self.evaluate_every, self.update_every, "update_every"),
            (
                "steps - random_steps",
                learning_steps,
                self.evaluate_every * self.segments,
                "evaluate_every * snapshots",
            ),
        ]
        for name, value, unit, what in whole:
            if value <= 0 or value % unit:
                raise ConfigError(
                    f"{name} = {value}: must be a positive multiple of {what} = {unit}"
                )
        if self.random_steps < self.stored_steps:
            raise ConfigError(
                f"schedule.random_steps = {self.random_steps}: must be at least "
                f"{self.stored_steps}, a stored segment"
            )
