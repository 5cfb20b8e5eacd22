"""Stage: a list of numbers."""

from pathlib import Path

from diffmbrl.toy.everyone import write


def run(job):
    """Counts."""
    constant = int(Path(__file__).with_name("constants.txt").read_text())
    write(job.outputs["data"], [constant + i for i in range(job.settings["size"])])
