"""What of Gehring et al. 2021 is run: stages, what they read and make, figures."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from diffmbrl import registry
from diffmbrl.implicit.metrics import ETA
from diffmbrl.pipeline.rule import ALL_CORES, Rule, every
from diffmbrl.plots.rule import figure


def over_domains(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per domain."""
    return every(domain=settings["domains"])


def over_sweeps(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per domain and parameterization."""
    return every(domain=settings["domains"], parameterization=settings["parameterizations"])


def over_single_actions(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """The sweeps whose model has one pseudo-action."""
    several = {name for name, p in settings["parameterizations"].items() if p["actions"] > 1}
    return [s for s in over_sweeps(settings) if s["parameterization"] not in several]


def over_covered(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """Those of them that are run at the eta of figure 2."""
    parameterizations = settings["parameterizations"]
    return [
        sweep
        for sweep in over_single_actions(settings)
        if ETA in parameterizations[sweep["parameterization"]]["etas"]
    ]


def where_compared(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job, where `explicit` and `implicit` are both run at the eta of figure 2."""
    found = {sweep["parameterization"] for sweep in over_covered(settings)}
    return [{}] if {"explicit", "implicit"} <= found else []


def over_compared(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per domain there."""
    return over_domains(settings) if where_compared(settings) else []


def over_td(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job per domain that has rates for TD(0)."""
    rates = settings["td"]["learning_rates"]
    return [
        job
        for job in over_domains(settings)
        if all(job["domain"] in by_domain for by_domain in rates.values())
    ]


def where_td(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One job, where a domain has rates for TD(0)."""
    return [{}] if over_td(settings) else []


def threads(wildcards: Mapping[str, str]) -> int:
    """All cores for the long sweeps; the short ones, mostly compilation, run side by side."""
    short = registry.fact("implicit.parameterizations", wildcards["parameterization"], "SHORT")
    return 1 if short else ALL_CORES


SWEEP = "parameterizations.{parameterization}"
DATASET = {"dataset": "implicit.collect.dataset"}
TRACED = {**DATASET, "selected": "implicit.aggregate.selected"}
SUMMARY = {"summary": "implicit.aggregate.summary"}
SELECTED = {**SUMMARY, "selected": "implicit.aggregate.selected"}
LOOKS = {"domains": "implicit.domains", "parameterizations": "implicit.parameterizations"}
THEORY, ENDS = "implicit.theory.theory", "implicit.ends.ends"
RATES = {name: f"implicit.rates.{name}" for name in ("rates", "contraction")}
draw = partial(figure, "implicit", facts=LOOKS)
STATED = ("{scale}", "seeds", "updates")

RULES = (
    Rule(
        "implicit.collect",
        outputs={"dataset": "datasets/{domain}.parquet"},
        settings=(
            "seeds",
            "epsilon",
            "evaluation_steps",
            "domains.{domain}.trajectories",
            "domains.{domain}.steps",
        ),
        over=over_domains,
    ),
    Rule(
        "implicit.train",
        inputs=DATASET,
        outputs={"runs": "results/{domain}_{parameterization}.parquet"},
        settings=(
            "seeds",
            "updates",
            "log_every",
            "batch_size",
            f"learning_rates={SWEEP}.learning_rates.{{domain}}",
            f"{SWEEP}.etas",
            f"{SWEEP}.reward_offsets",
            f"{SWEEP}.actions",
            f"{SWEEP}.backups",
            f"{SWEEP}.temperature",
        ),
        over=over_sweeps,
        threads=threads,
    ),
    Rule(
        "implicit.aggregate",
        inputs={"runs": "implicit.train.runs"},
        outputs={name: f"stats/{name}.csv" for name in ("summary", "selected", "curves")},
        facts={"domains": "implicit.domains"},
    ),
    Rule(
        "implicit.compare",
        inputs=SUMMARY,
        outputs={
            "table": "stats/compare.csv",
            "verdicts": "stats/compare.json",
            "metrics": "stats/metrics.json",
        },
        shown=("verdicts",),
    ),
    Rule(
        "implicit.ends",
        inputs={"runs": "implicit.train.runs", "selected": SELECTED["selected"]},
        outputs={"ends": "results/ends.parquet"},
        facts={"domains": "implicit.domains"},
    ),
    Rule(
        "implicit.theory",
        outputs={"theory": "results/theory.parquet"},
        settings=("theory",),
    ),
    Rule(
        "implicit.rates",
        inputs=DATASET,
        outputs={
            "rates": "results/rates_{domain}.parquet",
            "contraction": "results/contraction_{domain}.parquet",
        },
        settings=(
            "seeds",
            "parameterizations.implicit.etas",
            "parameterizations.implicit.reward_offsets",
        ),
        over=over_compared,
    ),
    Rule(
        "implicit.coverage",
        inputs=TRACED,
        outputs={"coverage": "results/coverage_{domain}_{parameterization}.parquet"},
        settings=(
            "seeds",
            "updates",
            "batch_size",
            f"{SWEEP}.reward_offsets",
            "coverage.untrained_below",
        ),
        over=over_covered,
    ),
    Rule(
        "implicit.noise",
        inputs=TRACED,
        outputs={"noise": "results/noise_{domain}.parquet"},
        settings=("seeds", "updates", "batch_size", "noise.measurements", "noise.offsets"),
        over=over_compared,
    ),
    Rule(
        "implicit.td",
        inputs=DATASET,
        outputs={"td": "results/td_{domain}.parquet"},
        settings=(
            "seeds",
            "epsilon",
            "updates",
            "batch_size",
            "td.offsets",
            "td.learning_rates",
            "coverage.untrained_below",
        ),
        over=over_td,
    ),
    Rule(
        "implicit.choice",
        inputs=TRACED,
        outputs={"choice": "results/choice_{domain}.parquet"},
        settings=(
            "seeds",
            "updates",
            "batch_size",
            "parameterizations.implicit.etas",
            "choice.held_out",
            "choice.offsets",
        ),
        over=over_compared,
    ),
    Rule(
        "implicit.regret",
        inputs={"ends": ENDS, "rates": RATES["rates"], "choice": "implicit.choice.choice"},
        outputs={"regret": "stats/regret.csv"},
        over=where_compared,
    ),
    Rule(
        "implicit.claims",
        inputs={
            **{name: f"implicit.{name}.{name}" for name in ("theory", "noise", "ends", "coverage")},
            **RATES,
            "compare": "implicit.compare.table",
        },
        outputs={"claims": "stats/claims.csv"},
        over=where_compared,
    ),
    draw("1", "initial_residual", inputs=SUMMARY, settings=STATED),
    draw("2", "final_residual", inputs=SELECTED, settings=STATED),
    draw("3", "eta", inputs=SELECTED, settings=STATED),
    draw(
        "A1",
        "offsets_{domain}_{parameterization}",
        inputs=SUMMARY,
        settings=STATED,
        over=over_single_actions,
    ),
    draw("A2", "every_eta", inputs=SELECTED, settings=STATED),
    draw("T1", "theorems", inputs={"theory": THEORY}, settings=("{scale}", "theory")),
    draw(
        "T2",
        "coverage",
        inputs={"coverage": "implicit.coverage.coverage", "ends": ENDS},
        settings=STATED,
        over=where_compared,
    ),
    draw(
        "T3",
        "stable_rates",
        inputs={**SUMMARY, **RATES},
        settings=STATED,
        over=where_compared,
    ),
    draw("T4", "td_targets", inputs={"td": "implicit.td.td"}, settings=STATED, over=where_td),
    draw(
        "T5",
        "choosing_eta",
        inputs={"regret": "implicit.regret.regret"},
        settings=STATED,
        over=where_compared,
    ),
    draw(
        "A3",
        "multi_action",
        inputs=SELECTED,
        settings=(*STATED, "parameterizations.implicit_mdp.actions"),
    ),
)
