"""What of Nikishin et al. 2022 is run: stages, what they read and make, figures."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from diffmbrl.omd import control_settings
from diffmbrl.omd.settings import settings_of
from diffmbrl.pipeline.rule import Rule, within
from diffmbrl.plots.rule import figure


def over_settings(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per CartPole setting (an experiment, an agent, what is static of a run) and rates."""
    cartpole = settings["cartpole"]
    rates = {name: agent["rates"] for name, agent in cartpole["agents"].items()}
    return [
        {
            "experiment": experiment,
            "agent": setting.agent,
            "variant": setting.variant,
            "inner_lr": f"{inner_lr:g}",
            "tau": f"{tau:g}",
        }
        for experiment in cartpole["experiments"]
        for setting in settings_of(
            experiment,
            cartpole[experiment],
            [agent for agent in rates if experiment in rates[agent]],
        )
        for inner_lr, tau in rates[setting.agent][experiment]
    ]


def over_fresh(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per setting of `selection` that has several pairs of rates to select from."""
    if not settings["cartpole"]["selection"]["fresh_seeds"]:
        return []
    pairs_of = Counter(
        (job["agent"], job["variant"])
        for job in over_settings(settings)
        if job["experiment"] == "selection"
    )
    return [
        {"agent": agent, "variant": variant}
        for (agent, variant), pairs in pairs_of.items()
        if pairs > 1
    ]


def ablated(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job where CartPole's ablation is run."""
    return [{}] if "ablation" in settings["cartpole"]["experiments"] else []


def over_control(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per task, agent, what is static of a run, and rates."""
    control = settings["control"]
    return [
        {
            "task": name,
            "agent": setting.agent,
            "variant": setting.variant,
            "inner_lr": f"{inner_lr:g}",
            "model_lr": f"{model_lr:g}",
        }
        for name, task in control["tasks"].items()
        for setting in control_settings.settings_of(task, control["adjoint"])
        for inner_lr, model_lr in task["rates"][setting.agent]
    ]


def keys(group: str, *names: str) -> tuple[str, ...]:
    """Dotted keys of a group."""
    return tuple(f"{group}.{name}" for name in names)


TABULAR = {name: f"omd.tabular.{name}" for name in ("misspecification", "bounds", "noise")}
CHECKS = ("identities", "temperature", "bounds", "alignment")
STUDIES = {
    "constraint": "omd.constraint.runs",
    "samples": "omd.samples.runs",
    "saddle": "omd.lagrangian.runs",
    **{name: f"omd.checks.{name}" for name in CHECKS},
}
BUILT = (
    "warmup",
    "evaluate_every",
    "episodes",
    "batch",
    "epsilon",
    "alpha",
    "gamma",
    "hidden",
    "model_lr",
    "adjoint_iterations",
    "adjoint_damping",
)
LOOKS = {"agents": "omd.agents"}
draw = partial(figure, "omd")
TABULAR_NOTE = ("{scale}", *keys("tabular", "seeds", "steps"))
CARTPOLE_NOTE = ("{scale}", *keys("cartpole", "steps", "precision", "final_evaluations"))
RUNS = "{agent}_{variant}_lr{inner_lr}_tau{tau}.parquet"
TRAINED = (  # what every training of the two-state MDP is set by
    "seeds",
    "norm_bounds",
    "norm_bound_max",
    "sigmas",
    "sigma_exponents",
    "steps",
    "learning_rate",
    "alpha",
    "projections",
)

OF_TABULAR = (
    Rule(
        "omd.tabular",
        outputs={name: f"results/tabular_{name}.parquet" for name in TABULAR},
        settings=keys("tabular", *TRAINED, "adjoints"),
    ),
    Rule(
        "omd.constraint",
        outputs={"runs": "results/tabular_constraint.parquet"},
        settings=keys("tabular", *TRAINED),
    ),
    Rule(
        "omd.samples",
        outputs={"runs": "results/tabular_samples.parquet"},
        settings=(
            *keys("studies", "seeds", "steps", "batches", "temperatures"),
            "tabular.learning_rate",
        ),
    ),
    Rule(
        "omd.lagrangian",
        outputs={"runs": "results/tabular_lagrangian.parquet"},
        settings=(*keys("studies", "seeds", "steps", "rates"), "tabular.alpha"),
    ),
    Rule(
        "omd.checks",
        outputs={name: f"results/checks_{name}.parquet" for name in CHECKS},
        settings=(
            *keys(
                "studies",
                "instances",
                "alphas",
                "alpha_exponents",
                "reward_errors",
                "dynamics_errors",
            ),
            *keys("tabular", "alpha", "sigmas", "sigma_exponents"),
        ),
    ),
    Rule(
        "omd.tabular_summary",
        inputs={"runs": tuple(TABULAR.values())},
        outputs={"tabular": "stats/tabular.csv"},
    ),
    Rule(
        "omd.compare",
        inputs={"tabular": "omd.tabular_summary.tabular"},
        outputs={
            "table": "stats/compare.csv",
            "verdicts": "stats/compare.json",
            "metrics": "stats/metrics.json",
        },
        shown=("verdicts",),
    ),
    draw(
        "2",
        "returns_under_bound",
        inputs={"tabular": "omd.tabular_summary.tabular"},
        settings=TABULAR_NOTE,
        facts=LOOKS,
    ),
    draw(
        "3",
        "equivalent_mdp_and_bounds",
        inputs={"tabular": "omd.tabular_summary.tabular", "bounds": TABULAR["bounds"]},
        settings=(*TABULAR_NOTE, "tabular.alpha"),
        facts=LOOKS,
    ),
    draw("6", "noise", inputs={"tabular": "omd.tabular_summary.tabular"}, settings=TABULAR_NOTE),
    draw(
        "T1",
        "tabular_statements",
        inputs={"tabular": "omd.tabular_summary.tabular", **STUDIES},
        settings=(
            "{scale}",
            "tabular.alpha",
            "trainings=tabular.seeds",
            *keys("studies", "seeds", "steps", "instances"),
        ),
    ),
)

OF_CARTPOLE = (
    Rule(
        "omd.cartpole",
        outputs={
            "curves": f"results/cartpole/{{experiment}}/{RUNS}",
            "models": f"results/cartpole/{{experiment}}/models/{RUNS}",
            "predictions": f"results/cartpole/{{experiment}}/predictions/{RUNS}",
        },
        settings=(
            *keys("cartpole", "steps", "precision", *BUILT),
            "cartpole.{experiment}.seeds",
        ),
        over=over_settings,
    ),
    Rule(
        "omd.fresh",
        inputs={"runs": "omd.cartpole.curves[experiment=selection]"},
        outputs={"curves": "results/cartpole/fresh/{agent}_{variant}.parquet"},
        settings=(
            *keys("cartpole", "steps", "precision", *BUILT, "final_evaluations"),
            "cartpole.selection.fresh_seeds",
        ),
        over=over_fresh,
    ),
    Rule(
        "omd.finals",
        inputs={
            "runs": ("omd.cartpole.curves", "omd.fresh.curves"),
            "predictions": "omd.cartpole.predictions",
        },
        outputs={name: f"stats/{name}.csv" for name in ("finals", "selections")},
        settings=keys("cartpole", "final_evaluations", "readings"),
    ),
    Rule(
        "omd.curvature",
        outputs={name: f"results/curvature_{name}.parquet" for name in ("eigenvalues", "answers")},
        settings=(
            *keys("cartpole", *BUILT),
            *keys("cartpole.curvature", "model_width", "seeds", "steps", "iterations"),
            "rates=cartpole.agents.omd.rates.width",
        ),
    ),
    Rule(
        "omd.zero_shot",
        inputs={"models": "omd.cartpole.models[experiment=width]"},
        outputs={"runs": "results/zero_shot.parquet"},
        settings=(
            *keys("cartpole", *BUILT, "steps", "precision", "agents"),
            *keys("cartpole.zero_shot", "widths", "updates"),
        ),
    ),
    Rule(
        "omd.aggregate",
        inputs={"cartpole": "omd.cartpole.curves"},
        outputs={name: f"stats/{name}.csv" for name in ("cartpole", "curves")},
        settings=keys("cartpole", "final_evaluations"),
    ),
    draw(
        "4",
        "width_and_distractors",
        inputs={"cartpole": "omd.aggregate.cartpole", "selections": "omd.finals.selections"},
        settings=CARTPOLE_NOTE,
        facts=LOOKS,
    ),
    draw(
        "5",
        "likelihood",
        inputs={
            "curves": "omd.aggregate.curves",
            "predictions": "omd.cartpole.predictions[experiment=width]",
            "runs": "omd.cartpole.curves[experiment=width]",
        },
        settings=CARTPOLE_NOTE,
        facts=LOOKS,
    ),
    draw(
        "7",
        "ablation",
        inputs={"curves": "omd.aggregate.curves"},
        settings=(*CARTPOLE_NOTE, "cartpole.adjoint_iterations"),
        over=ablated,
    ),
    draw(
        "T2",
        "dead_units_and_parts",
        inputs={
            "curves": "omd.aggregate.curves",
            "finals": "omd.finals.finals",
            "answers": "omd.curvature.answers",
            "zero_shot": "omd.zero_shot.runs",
        },
        settings=CARTPOLE_NOTE,
        facts=LOOKS,
    ),
)

OF_CONTROL = (
    Rule(
        "omd.control",
        outputs={
            "curves": "results/control/{task}/"
            "{agent}_{variant}_lr{inner_lr}_modellr{model_lr}.parquet"
        },
        settings=(
            *keys("control", "gamma", "adjoint_iterations", "adjoint_damping"),
            *keys(
                "control.tasks.{task}",
                "seeds",
                "steps",
                "warmup",
                "evaluate_every",
                "episodes",
                "hidden",
                "batch",
                "tau",
                "alpha",
            ),
        ),
        over=over_control,
    ),
    Rule(
        "omd.control_summary",
        inputs={"curves": "omd.control.curves"},
        outputs={
            "arms": "stats/control.csv",
            "runs": "stats/control_runs.csv",
            "differences": "stats/control_differences.csv",
            "curves": "stats/control_curves.csv",
        },
        settings=keys("control", "final_evaluations"),
    ),
    draw(
        "8",
        "control",
        inputs={
            "arms": "omd.control_summary.arms",
            "runs": "omd.control_summary.runs",
            "curves": "omd.control_summary.curves",
        },
        settings=("{scale}", "plan=control"),
        facts=LOOKS | {"tasks": "rpg.tasks"},
    ),
)

RULES = (
    *within("tabular", OF_TABULAR),
    *within("cartpole", OF_CARTPOLE),
    *within("control", OF_CONTROL),
    Rule(
        "omd.claims",
        inputs={
            **TABULAR,
            **{name: source for name, source in STUDIES.items() if name != "bounds"},
            "pairs": STUDIES["bounds"],
            "finals": "omd.finals.finals",
            "selections": "omd.finals.selections",
            "predictions": "omd.cartpole.predictions[experiment=width]",
            "eigenvalues": "omd.curvature.eigenvalues",
            "answers": "omd.curvature.answers",
            "zero_shot": "omd.zero_shot.runs",
            "control": "omd.control_summary.runs",
        },
        outputs={"claims": "stats/claims.csv"},
    ),
)
