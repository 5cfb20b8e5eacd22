"""What a job asks of a cluster: memory and time, from what manifests report of earlier jobs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from diffmbrl.config import SMOKE

AROUND = 400  # MB: a cluster runs two Snakemakes around a job, 170 MB each at their peak
ROOM = 1.5  # times the most memory that any job of the rule took
SLOWER = 3.0  # times the longest that any job of the rule took: another processor, fewer threads
START = 10  # minutes: two Snakemakes, imports over a network, compilation
UNKNOWN_MEMORY = 4000  # MB, where no manifest tells
UNKNOWN_MINUTES = 720  # where no manifest of the scale tells
SMOKE_MINUTES = 30  # a smoke job takes seconds, by what the scale is for


@dataclass(frozen=True)
class Need:
    """Memory in MB and time in minutes of a job's first attempt."""

    memory: int
    minutes: int

    def at(self, attempt: int) -> "Need":
        """What the n-th attempt asks for: twice as much as the one before."""
        return Need(self.memory << (attempt - 1), self.minutes << (attempt - 1))


def need(
    scale: str,
    reports: Iterable[tuple[str, Mapping[str, Any]]],
    memory: int | None = None,
    minutes: int | None = None,
) -> Need:
    """What the jobs of a rule need at a scale.

    Args:
        scale: of the job.
        reports: scale and report of the rule's jobs that have a manifest. Memory is taken from
            the job's scale, or else from all; time from the job's scale alone.
        memory: what the rule itself states, in MB; counts instead of the reports.
        minutes: the same of its time.
    """
    known = [(at, report) for at, report in reports if report]
    here = [report for at, report in known if at == scale]
    peaks = [report["peak_memory_mb"] for report in here or [report for _, report in known]]
    seconds = [report["seconds"] for report in here]
    if memory is None:
        memory = _rounded(ROOM * max(peaks) + AROUND) if peaks else UNKNOWN_MEMORY
    if minutes is None:
        without = SMOKE_MINUTES if scale == SMOKE else UNKNOWN_MINUTES
        minutes = math.ceil(SLOWER * max(seconds) / 60) + START if seconds else without
    return Need(memory, minutes)


def _rounded(megabytes: float) -> int:
    return 100 * math.ceil(megabytes / 100)
