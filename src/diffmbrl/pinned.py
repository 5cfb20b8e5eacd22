"""Pins the numerics of a process, also of one whose parent pinned them.

Importing this module pins: import it before NumPy, in tests and benchmarks.
"""

import json
import os

from diffmbrl import numerics

# Snakemake gives these to the shell of every job, with as many threads as the job has cores.
OF_SNAKEMAKE = [
    f"{name}_NUM_THREADS" for name in ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB", "NUMEXPR")
]


def pin() -> None:
    """Sets the pins, whatever came between this process and a parent that had set them.

    Threads from Snakemake are set back without a word; another change since the parent pinned is
    overridden and said so like a user's (`diffmbrl.numerics.pin`).
    """
    if os.environ.get(numerics.SWITCH) == "off":
        return
    before = numerics.overridden()
    if os.environ.pop(numerics._DONE, None) is not None:
        for name in OF_SNAKEMAKE:
            os.environ.pop(name, None)
    numerics.pin()
    os.environ[numerics._DONE] = json.dumps(before | numerics.overridden())


pin()
