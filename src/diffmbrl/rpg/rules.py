"""What of Zhang et al. 2023 is run: stages, what they read and make, figures."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from diffmbrl.pipeline.rule import Rule, within
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


def judged(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job where a table is made that claims are judged from."""
    return [{}] if "theory" in settings["cases"] else studied(settings)


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
AGENTS = {
    "returns": "rpg.train.returns",
    "gradients": "rpg.gradients.gradients",
    "swap": "rpg.swap.swap",
}
STUDIES = ("exact", "horizon", "smoothness", "theory", "convergence")
STATS = {
    **{name: f"rpg.aggregate.{name}" for name in ("returns", "runs", "gradients", "swap")},
    **{name: f"rpg.theory_summary.{name}" for name in STUDIES},
}
draw = partial(figure, "rpg")
draw_agents = partial(draw, over=studied)


def alone(name: str, *settings: str) -> Rule:
    """A stage that one job runs, from settings of its own."""
    results = {name: f"results/{name}.parquet"}
    return Rule(f"rpg.{name}", outputs=results, settings=settings)


def stats(*names: str) -> dict[str, str]:
    """Tables of statistics as inputs."""
    return {name: STATS[name] for name in names}


def written(stage: str) -> dict[str, str]:
    """Where a stage's statistics lie."""
    return {
        name: f"stats/{name}.csv"
        for name, source in STATS.items()
        if source == f"rpg.{stage}.{name}"
    }


OF_AGENTS = (
    Rule(
        "rpg.train",
        outputs={
            "returns": "results/train/{task}/{estimator}/{horizon}.parquet",
            "snapshots": "intermediate/snapshots/{task}/{estimator}/{horizon}.parquet",
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
    Rule(
        "rpg.aggregate",
        inputs=AGENTS,
        outputs=written("aggregate"),
        over=studied,
    ),
    Rule(
        "rpg.rates",
        inputs={"returns": AGENTS["returns"]},
        outputs={"rates": "stats/rates.csv"},
    ),
    draw_agents("1", "returns", inputs=stats("returns"), settings=("{scale}",), facts=LOOKS),
    draw_agents(
        "2",
        "variance_bias",
        inputs=stats("gradients"),
        settings=("{scale}", "plan=gradients"),
        facts=LOOKS,
    ),
    draw_agents(
        "3",
        "landscape",
        inputs={"landscape": "rpg.landscape.landscape"},
        settings=("{scale}", "plan=landscape"),
        facts=LOOKS,
    ),
    draw_agents("5", "lipschitz", inputs=stats("runs"), settings=("{scale}",), facts=LOOKS),
    draw_agents("7", "placement", inputs=stats("runs"), settings=("{scale}",), facts=LOOKS),
    draw_agents("9", "swap", inputs=stats("swap"), settings=("{scale}", "plan=swap"), facts=LOOKS),
)

OF_THEORY = (
    alone("exact", "exact", "learner.gamma"),
    alone("horizon", "horizon_study"),
    alone("smoothness", "smoothness"),
    alone("theory", "theory"),
    alone("convergence", "convergence"),
    Rule(
        "rpg.theory_summary",
        inputs={name: f"rpg.{name}.{name}" for name in STUDIES},
        outputs=written("theory_summary"),
        settings=("horizon_batch=horizon_study.batch", "policy_batch=smoothness.policy_batch"),
    ),
    draw(
        "4",
        "best_horizon",
        inputs=stats("horizon"),
        settings=("{scale}", "plan=horizon_study"),
    ),
    draw(
        "6",
        "smoothness",
        inputs=stats("smoothness"),
        settings=("{scale}", "plan=smoothness"),
    ),
    draw("8", "theory", inputs=stats("theory"), settings=("{scale}", "plan=theory")),
    draw(
        "10",
        "convergence",
        inputs=stats("convergence"),
        settings=("{scale}", "plan=convergence"),
    ),
)

RULES = (
    *within("agents", OF_AGENTS),
    *within("theory", OF_THEORY),
    Rule(
        "rpg.claims",
        inputs=dict(STATS),
        outputs={"claims": "stats/claims.csv"},
        over=judged,
    ),
)
