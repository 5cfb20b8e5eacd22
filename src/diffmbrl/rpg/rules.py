"""What of Zhang et al. 2023 is run: stages, what they read and make, figures."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from diffmbrl.pipeline.rule import Rule
from diffmbrl.plots.rule import figure

MEASURED = "rp_dp"  # the estimator whose snapshots are measured


def trained(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per task, estimator and horizon."""
    return [
        {"task": task, "estimator": estimator, "horizon": horizon}
        for task, own in settings["tasks"].items()
        for estimator, horizons in own["estimators"].items()
        for horizon in horizons
    ]


def measured(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per task and horizon of the measured estimator, of tasks with snapshots."""
    return [
        {name: job[name] for name in ("task", "horizon")}
        for job in trained(settings)
        if job["estimator"] == MEASURED and settings["tasks"][job["task"]]["schedule"]["snapshots"]
    ]


def studied(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job, or none where no task has snapshots: scales `tuning` and `levels` only train."""
    return [{}] if measured(settings) else []


def longest(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per task, at the longest of those horizons."""
    jobs = sorted(measured(settings), key=lambda job: int(job["horizon"][1:]))
    return list({job["task"]: job for job in jobs}.values())


LOOKS = {"estimators": "rpg.estimators", "tasks": "rpg.tasks"}
LEARNER = (  # what rebuilds the learner whose snapshots are measured
    "schedule=tasks.{task}.schedule",
    "arms=tasks.{task}.estimators.rp_dp.{horizon}",
    "learner",
)
SNAPSHOTS = {"snapshots": "rpg.train.snapshots[estimator=rp_dp]"}
TABLES = {  # made by one job each, or by one per task
    "returns": "rpg.train.returns",
    "gradients": "rpg.gradients.gradients",
    "swap": "rpg.swap.swap",
    "exact": "rpg.exact.exact",
    "horizon": "rpg.horizon.horizon",
    "smoothness": "rpg.smoothness.smoothness",
    "theory": "rpg.theory.theory",
    "convergence": "rpg.convergence.convergence",
}
STATS = ("returns", "runs", *list(TABLES)[1:])
draw = partial(figure, "rpg", over=studied)


def alone(name: str, *settings: str) -> Rule:
    """A stage that one job runs, from settings of its own."""
    results = {name: f"results/{name}.parquet"}
    return Rule(f"rpg.{name}", outputs=results, settings=settings, over=studied)


def stats(*names: str) -> dict[str, str]:
    """Tables of statistics as inputs."""
    return {name: f"rpg.aggregate.{name}" for name in names}


RULES = (
    Rule(
        "rpg.train",
        outputs={
            "returns": "results/train/{task}/{estimator}/{horizon}.parquet",
            "snapshots": "results/snapshots/{task}/{estimator}/{horizon}.parquet",
        },
        settings=(
            "schedule=tasks.{task}.schedule",
            "arms=tasks.{task}.estimators.{estimator}.{horizon}",
            "learner",
        ),
        over=trained,
    ),
    Rule(
        "rpg.gradients",
        inputs=SNAPSHOTS,
        outputs={"gradients": "results/gradients/{task}/{horizon}.parquet"},
        settings=(*LEARNER, "gradients"),
        over=measured,
    ),
    Rule(
        "rpg.landscape",
        inputs=SNAPSHOTS,
        outputs={"landscape": "results/landscape/{task}/{horizon}.parquet"},
        settings=(*LEARNER, "landscape"),
        over=longest,
    ),
    Rule(
        "rpg.swap",
        inputs=SNAPSHOTS,
        outputs={"swap": "results/swap/{task}/{horizon}.parquet"},
        settings=(*LEARNER, "gradients", "swap"),
        over=longest,
    ),
    alone("exact", "exact", "learner.gamma"),
    alone("horizon", "horizon_study"),
    alone("smoothness", "smoothness"),
    alone("theory", "theory"),
    alone("convergence", "convergence"),
    Rule(
        "rpg.aggregate",
        inputs=TABLES,
        outputs={name: f"stats/{name}.csv" for name in STATS},
        settings=("horizon_batch=horizon_study.batch", "policy_batch=smoothness.policy_batch"),
        over=studied,
    ),
    Rule(
        "rpg.rates",
        inputs={"returns": TABLES["returns"]},
        outputs={"rates": "stats/rates.csv"},
    ),
    Rule(
        "rpg.claims",
        inputs=stats(*STATS),
        outputs={"claims": "stats/claims.csv"},
        over=studied,
    ),
    draw("1", "returns", inputs=stats("returns"), settings=("{scale}",), facts=LOOKS),
    draw(
        "2",
        "variance_bias",
        inputs=stats("gradients"),
        settings=("{scale}", "plan=gradients"),
        facts=LOOKS,
    ),
    draw(
        "3",
        "landscape",
        inputs={"landscape": "rpg.landscape.landscape"},
        settings=("{scale}", "plan=landscape"),
        facts=LOOKS,
    ),
    draw(
        "4",
        "best_horizon",
        inputs=stats("horizon"),
        settings=("{scale}", "plan=horizon_study"),
    ),
    draw("5", "lipschitz", inputs=stats("runs"), settings=("{scale}",), facts=LOOKS),
    draw(
        "6",
        "smoothness",
        inputs=stats("smoothness"),
        settings=("{scale}", "plan=smoothness"),
    ),
    draw("7", "placement", inputs=stats("runs"), settings=("{scale}",), facts=LOOKS),
    draw("8", "theory", inputs=stats("theory"), settings=("{scale}", "plan=theory")),
    draw("9", "swap", inputs=stats("swap"), settings=("{scale}", "plan=swap"), facts=LOOKS),
    draw(
        "10",
        "convergence",
        inputs=stats("convergence"),
        settings=("{scale}", "plan=convergence"),
    ),
)
