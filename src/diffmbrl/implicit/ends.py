"""Stage: every run's start and end at the rates that figures show, for statistics over seeds.

One row per run: `rates` says whether its rate is the selected one of its family or the published
one; a rate that is both has two rows. `easy` and `hard` are the reward offsets of the smallest and
the largest initial residual of a domain, over seeds; `gamma` is its true discount.
"""

import pandas as pd

from diffmbrl.implicit.aggregate import COLUMNS, FAMILY
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import read_parquet, write_parquet

RUN = [*FAMILY, "learning_rate", "reward_offset", "seed"]
PARTS = ["residual_norm", "residual_ones_norm", "residual_ortho_norm"]


def run(job: Job) -> None:
    """Writes the table of all domains and parameterizations."""
    selected = pd.read_csv(job.input("selected"))
    frames = [ends(read_parquet(path, COLUMNS), selected) for path in job.inputs["runs"]]
    frame = pd.concat(frames, ignore_index=True)
    sizes = frame.groupby(["domain", "reward_offset"])["residual_norm_t0"].mean().unstack()
    for name, offset in (("easy", sizes.idxmin(axis=1)), ("hard", sizes.idxmax(axis=1))):
        frame[name] = frame["domain"].map(offset)
    gammas = {name: facts["GAMMA"] for name, facts in job.settings["domains"].items()}
    frame["gamma"] = frame["domain"].map(gammas)
    write_parquet(frame, job.outputs["ends"])


def ends(runs: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """First and last logged step of the runs at their family's selected and published rates."""
    runs = runs.assign(**{name: runs[name].astype(str) for name in ("domain", "parameterization")})
    runs["backup"] = runs["backup"].astype(str) if "backup" in runs else "none"
    frames = []
    for rates, column in (
        ("selected", "learning_rate"),
        ("published", "published_learning_rate"),
    ):
        wanted = selected[FAMILY].assign(learning_rate=selected[column], rates=rates)
        mine = runs.merge(wanted, on=[*FAMILY, "learning_rate"])
        first = mine[mine["step"] == 0].set_index([*RUN, "rates"])[PARTS].add_suffix("_t0")
        last = mine[mine["step"] == runs["step"].max()].set_index([*RUN, "rates"])
        frames.append(last[[*PARTS, "diverged"]].join(first).reset_index())
    return pd.concat(frames, ignore_index=True)
