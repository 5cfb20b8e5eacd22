"""Stage: offline data of one domain, every seed, by epsilon-greedy rollouts."""

from diffmbrl import registry
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

USES = {"domain": "implicit.domains"}


def run(job: Job) -> None:
    """Collects every seed's sets and writes them as one table."""
    settings = dict(job.settings)
    domain = registry.load("implicit.domains", settings.pop("domain")).DOMAIN
    write_parquet(domain.collect(**settings), job.outputs["dataset"])
