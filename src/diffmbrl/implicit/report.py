"""Command `diffmbrl compare implicit`: prints how far ours is from the published numbers."""

import argparse
from pathlib import Path

import pandas as pd

from diffmbrl.errors import DataError
from diffmbrl.implicit.compare import compare_runs, compare_summary, read_published, verdicts
from diffmbrl.stats.parity import Bar
from diffmbrl.tables import read_parquet

BAR = Bar()


def main(arguments: argparse.Namespace) -> int:
    """Prints the comparison; returns 0 where ours meets the bar and 1 where it does not."""
    passed = _summary(Path(f"data/stats/{arguments.scale}/implicit/summary.csv"))
    if arguments.published is not None:
        results = Path(f"data/results/{arguments.scale}/implicit")
        passed = _runs(results, arguments.published) and passed
    return 0 if passed else 1


def _summary(path: Path) -> bool:
    if not path.is_file():
        raise DataError(f"{path}: not found; run `snakemake --cores 2 implicit` first")
    table = compare_summary(pd.read_csv(path))
    print(f"Means over seeds at the published learning rates, {path}:")
    passed = True
    for figure, verdict in verdicts(table).items():
        print(
            f"  {figure}: {verdict['agree']} of {verdict['compared']} published means within 0.1% "
            f"and with the same number of diverged runs; worst difference "
            f"{verdict['worst_difference']:.2g}; {verdict['verdict']}"
        )
        passed &= verdict["verdict"] == "agrees"
    for _, row in table[~table["passes"]].head(20).iterrows():
        print(
            f"    {row['domain']} {row['parameterization']} rate {row['learning_rate']:g} "
            f"eta {row['eta']:g} offset {row['reward_offset']:g} {row['metric']}: "
            f"ours {row['ours']:.6g}, published {row['published']:.6g}, diverged "
            f"{row['n_diverged']} and {row['n_diverged_published']} of {row['n_runs']}"
        )
    return passed


def _runs(results: Path, published: Path) -> bool:
    theirs = read_published(published)
    seeds = set(theirs["seed"])
    wanted = [
        "domain",
        "parameterization",
        "learning_rate",
        "eta",
        "reward_offset",
        "seed",
        "step",
        "residual_norm",
    ]
    tables = []
    for path in sorted(results.glob("*plicit.parquet")):
        runs = read_parquet(path, wanted)[wanted]
        tables.append(compare_runs(runs[runs["seed"].isin(seeds)], theirs, BAR))
    if not tables:
        raise DataError(f"{results}: holds no results; run `snakemake --cores 2 implicit` first")
    table = pd.concat(tables, ignore_index=True)
    print(f"Run by run against {published}, {len(seeds)} seeds, residual_norm:")
    columns = dict.fromkeys(("median", "worst", "median_over_steps"), "{:.1e}".format)
    columns |= dict.fromkeys(("within", "divergence_agrees"), "{:.2%}".format)
    print(table.drop(columns="passes").to_string(index=False, formatters=columns))
    passed = bool(table["passes"].all())
    print(
        f"  bar: at least {BAR.share:.1%} within {BAR.tolerance:g} and the same in divergence, "
        f"median at most {BAR.median:g}, at every step after 0: {'met' if passed else 'NOT met'}"
    )
    return passed
