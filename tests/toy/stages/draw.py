"""Stage: a figure, of sorts."""

from diffmbrl.toy.everyone import read, write
from diffmbrl.toy.palette import COLOR


def run(job):
    """Draws."""
    labels = [look["LABEL"] for look in job.settings["methods"].values()]
    for kind, path in job.outputs.items():
        write(path, [kind, COLOR, labels, job.settings["title"], read(job.input("summary"))])
