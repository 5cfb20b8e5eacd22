"""Stage: what each CartPole run ends with, and what the choice of rates does to it (figure 4).

A final return can be read in several ways, and the best pair of rates can be selected on the runs
that are then reported (as published: too good, by the winner's curse) or on other ones.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from diffmbrl.omd.selection import CURVES, RATES, SETTING, read_cartpole
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.claims import t_interval
from diffmbrl.tables import read_parquet, write_csv

RUN = [*SETTING, *RATES, "seed"]
STILL = 0.01  # a prediction that varies by less than this part of the truth is called constant


def finals(runs: pd.DataFrame, readings: Sequence[int], evaluations: int) -> pd.DataFrame:
    """One row per run.

    Args:
        runs: evaluations of all runs, one experiment or several.
        readings: numbers of last evaluations whose mean return is taken, columns `last_<n>`.
        evaluations: how many last evaluations the other columns average.

    Returns:
        Axes, `last_<n>`, `best` (the highest evaluation of the run), the means of the rest, and the
        `steps` of a run.
    """
    runs = runs.sort_values("step")
    grouped = runs.groupby(RUN, observed=True)
    found = grouped[[*CURVES]].apply(lambda part: part.tail(evaluations).mean())
    returns = grouped["eval_return"]
    found["best"] = returns.max()
    for n in readings:
        found[f"last_{n}"] = returns.apply(lambda values, n=n: values.tail(n).mean())
    found["steps"] = grouped["step"].max()
    found["diverged"] = grouped["diverged"].any()
    return found.reset_index()


def still(predictions: pd.DataFrame) -> pd.DataFrame:
    """By run, the share of coordinates whose predictions are constant along the trajectory."""
    by = [*RUN, "coordinate"]
    spread = predictions.groupby(by, observed=True)[["predicted", "true"]].std()
    constant = (spread["predicted"] < STILL * spread["true"]).rename("still")
    return constant.groupby(RUN, observed=True).mean().reset_index()


def halves(seeds: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first and the second half of the seeds."""
    ordered = sorted(seeds)
    return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]


def by_setting(found: pd.DataFrame) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Every setting and its runs, those on fresh seeds with the ones that selected their pair."""
    experiment = found["experiment"].replace("fresh", "selection")
    yield from found.groupby([experiment, *SETTING[1:]], observed=True)


def selected(runs: pd.DataFrame, reading: str) -> pd.DataFrame:
    """The runs that each way of selecting a pair of rates reports, of one setting.

    `same seeds`: those of the pair with the highest mean (as published). `fresh seeds`: those of
    `omd.fresh`, which had no part in selecting their pair. `other half`: each half of the seeds
    under the pair that is best on the other half. `best of each seed`: the best pair seed by seed,
    which nobody could know beforehand. One pair alone: `one pair`.

    Returns:
        Rows of `runs` with columns `selection` and `tried`, the number of pairs.
    """
    is_fresh = runs["experiment"] == "fresh"
    fresh, runs = runs[is_fresh], runs[~is_fresh]
    table = runs.pivot(index="seed", columns=RATES, values=reading)
    runs = runs.assign(tried=table.shape[1])
    pairs = runs.set_index([*RATES, "seed"])
    if table.shape[1] == 1:
        return runs.assign(selection="one pair")
    first, second = halves(list(table.index))

    def of(pair, seeds, name):
        return pairs.loc[[(*pair, seed) for seed in seeds]].reset_index().assign(selection=name)

    parts = [of(table.mean().idxmax(), table.index, "same seeds")]
    if first:
        parts += [of(table.loc[first].mean().idxmax(), second, "other half")]
        parts += [of(table.loc[second].mean().idxmax(), first, "other half")]
    if not fresh.empty:
        tried = table.shape[1]
        parts += [fresh.assign(experiment="selection", tried=tried, selection="fresh seeds")]
    best = table.idxmax(axis=1)
    parts += [of(best[seed], [seed], "best of each seed") for seed in table.index]
    return pd.concat(parts, ignore_index=True)


def selections(found: pd.DataFrame, readings: Sequence[str]) -> pd.DataFrame:
    """Mean return of every setting, reading and way of selecting, with its 99% t interval.

    Of the pairs of rates that were `tried`, `pairs` are among the runs that are reported.
    """
    rows = []
    for key, runs in by_setting(found):
        for reading in readings:
            for name, part in selected(runs, reading).groupby("selection", sort=False):
                values = part[reading].to_numpy()
                nan = float("nan")
                mean, low, high = (
                    t_interval(values) if len(values) > 1 else (float(values.mean()), nan, nan)
                )
                pairs = part[RATES].drop_duplicates()
                row = dict(zip(SETTING, key, strict=True))
                row |= {"reading": reading, "selection": name, "n": len(values)}
                row |= {"mean": mean, "low": low, "high": high}
                row |= {"tried": part["tried"].iloc[0], "pairs": len(pairs)}
                if len(pairs) == 1:
                    row |= pairs.iloc[0].to_dict()
                rows.append(row)
    return pd.DataFrame(rows)


def read_predictions(paths: Sequence[Path]) -> pd.DataFrame:
    """The share of constant predictions of every run; a table's experiment is two folders up."""
    parts = [still(read_parquet(p).assign(experiment=p.parent.parent.name)) for p in paths]
    return pd.concat(parts, ignore_index=True)


def run(job: Job) -> None:
    """Writes the runs' ends and the selections."""
    s = job.settings
    runs = read_cartpole(job.inputs["runs"])
    parts = [
        finals(part, s["readings"], s["final_evaluations"])
        for _, part in runs.groupby("experiment")
    ]
    found = pd.concat(parts, ignore_index=True)
    found = found.merge(read_predictions(job.inputs["predictions"]), on=RUN, how="left")
    write_csv(found, job.outputs["finals"])
    readings = [*(f"last_{n}" for n in s["readings"]), "best"]
    write_csv(selections(found, readings), job.outputs["selections"])
