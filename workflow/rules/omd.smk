from functools import partial

from diffmbrl.omd.settings import settings_of

OMD_TABLES = ["misspecification", "bounds", "noise"]
OMD_EXPERIMENTS = ["width", "distractors", "ablation"]
OMD_CARTPOLE = {
    name: f"omd.cartpole.{name}"
    for name in [
        "seeds",
        "steps",
        "warmup",
        "evaluate_every",
        "episodes",
        "batch",
        "epsilon",
        "alpha",
        "gamma",
        "hidden",
        "precision",
        "model_lr",
        "adjoint_iterations",
        "adjoint_damping",
    ]
} | {"rates": "omd.cartpole.rates.{experiment}.{agent}"}
OMD_NOTE = {
    name: f"omd.cartpole.{name}"
    for name in [
        "seeds",
        "steps",
        "precision",
        "final_evaluations",
        "rates",
    ]
}


def omd_experiments(scale):
    """The CartPole experiments that are run at a scale."""
    return diffmbrl.settings("omd", scale)["cartpole"]["experiments"]


def omd_tables(name, wildcards):
    """The tables of an experiment's settings, in the order of the settings."""
    values = diffmbrl.settings("omd", wildcards.scale)["cartpole"]
    axes = values[wildcards.experiment]
    return [
        f"data/results/{wildcards.scale}/omd/cartpole/{wildcards.experiment}/"
        + name.format(agent=setting.agent, variant=setting.variant)
        for setting in settings_of(wildcards.experiment, axes, values["agents"])
    ]


wildcard_constraints:
    experiment="|".join(OMD_EXPERIMENTS),
    agent="omd|mle|vep",
    variant="[a-z0-9-]+",


rule omd_tabular:
    output:
        **{
            table: f"data/results/{{scale}}/omd/tabular_{table}.parquet"
            for table in OMD_TABLES
        },
    log:
        "logs/{scale}/omd/tabular.log",
    threads: workflow.cores
    params:
        *stage(
            "omd.tabular",
            seeds="omd.tabular.seeds",
            norm_bounds="omd.tabular.norm_bounds",
            norm_bound_max="omd.tabular.norm_bound_max",
            sigmas="omd.tabular.sigmas",
            sigma_exponents="omd.tabular.sigma_exponents",
            steps="omd.tabular.steps",
            learning_rate="omd.tabular.learning_rate",
            alpha="omd.tabular.alpha",
            projections="omd.tabular.projections",
            adjoints="omd.tabular.adjoints",
        ),
    shell:
        "diffmbrl run omd.tabular --output misspecification {output.misspecification} "
        "--output bounds {output.bounds} --output noise {output.noise} " + JOB


rule omd_cartpole:
    output:
        curves="data/results/{scale}/omd/cartpole/{experiment}/{agent}_{variant}.parquet",
    log:
        "logs/{scale}/omd/cartpole_{experiment}/{agent}_{variant}.log",
    wildcard_constraints:
        experiment="distractors|ablation",
    params:
        *stage("omd.cartpole", "agent", "variant", **OMD_CARTPOLE),
    shell:
        "diffmbrl run omd.cartpole --output curves {output.curves} " + JOB


rule omd_cartpole_width:
    output:
        curves="data/results/{scale}/omd/cartpole/{experiment}/{agent}_{variant}.parquet",
        predictions="data/results/{scale}/omd/cartpole/{experiment}/predictions/{agent}_{variant}.parquet",
    log:
        "logs/{scale}/omd/cartpole_{experiment}/{agent}_{variant}.log",
    wildcard_constraints:
        experiment="width",
    params:
        *stage("omd.cartpole", "agent", "variant", **OMD_CARTPOLE),
    shell:
        "diffmbrl run omd.cartpole --output curves {output.curves} "
        "--output predictions {output.predictions} " + JOB


rule omd_join:
    input:
        curves=partial(omd_tables, "{agent}_{variant}.parquet"),
    output:
        curves="data/results/{scale}/omd/cartpole_{experiment}.parquet",
    log:
        "logs/{scale}/omd/join_{experiment}.log",
    wildcard_constraints:
        experiment="distractors|ablation",
    params:
        *stage("omd.join"),
    shell:
        "diffmbrl run omd.join --input curves {input.curves} "
        "--output curves {output.curves} " + JOB


rule omd_join_width:
    input:
        curves=partial(omd_tables, "{agent}_{variant}.parquet"),
        predictions=partial(omd_tables, "predictions/{agent}_{variant}.parquet"),
    output:
        curves="data/results/{scale}/omd/cartpole_{experiment}.parquet",
        predictions="data/results/{scale}/omd/predictions_{experiment}.parquet",
    log:
        "logs/{scale}/omd/join_{experiment}.log",
    wildcard_constraints:
        experiment="width",
    params:
        *stage("omd.join"),
    shell:
        "diffmbrl run omd.join --input curves {input.curves} "
        "--input predictions {input.predictions} --output curves {output.curves} "
        "--output predictions {output.predictions} " + JOB


rule omd_aggregate:
    input:
        tabular=expand(
            "data/results/{{scale}}/omd/tabular_{table}.parquet", table=OMD_TABLES
        ),
        cartpole=lambda wildcards: expand(
            "data/results/{scale}/omd/cartpole_{experiment}.parquet",
            scale=wildcards.scale,
            experiment=omd_experiments(wildcards.scale),
        ),
    output:
        tabular="data/stats/{scale}/omd/tabular.csv",
        cartpole="data/stats/{scale}/omd/cartpole.csv",
        curves="data/stats/{scale}/omd/curves.csv",
    log:
        "logs/{scale}/omd/aggregate.log",
    params:
        *stage("omd.aggregate", final_evaluations="omd.cartpole.final_evaluations"),
    shell:
        "diffmbrl run omd.aggregate --input tabular {input.tabular} "
        "--input cartpole {input.cartpole} --output tabular {output.tabular} "
        "--output cartpole {output.cartpole} --output curves {output.curves} " + JOB


rule omd_compare:
    input:
        tabular="data/stats/{scale}/omd/tabular.csv",
    output:
        table="data/stats/{scale}/omd/compare.csv",
        metrics="data/stats/{scale}/omd/compare.json",
    log:
        "logs/{scale}/omd/compare.log",
    params:
        *stage("omd.compare"),
    shell:
        "diffmbrl run omd.compare --input tabular {input.tabular} "
        "--output table {output.table} --output metrics {output.metrics} " + JOB


rule fig_omd_2:
    input:
        tabular="data/stats/{scale}/omd/tabular.csv",
    output:
        **figure("omd/fig_2_returns_under_bound"),
    log:
        "logs/{scale}/omd/fig_2.log",
    params:
        *stage(
            "plots.fig_omd_2",
            "scale",
            seeds="omd.tabular.seeds",
            steps="omd.tabular.steps",
        ),
    shell:
        "diffmbrl run plots.fig_omd_2 --input tabular {input.tabular} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_omd_3:
    input:
        tabular="data/stats/{scale}/omd/tabular.csv",
        bounds="data/results/{scale}/omd/tabular_bounds.parquet",
    output:
        **figure("omd/fig_3_equivalent_mdp_and_bounds"),
    log:
        "logs/{scale}/omd/fig_3.log",
    params:
        *stage(
            "plots.fig_omd_3",
            "scale",
            seeds="omd.tabular.seeds",
            steps="omd.tabular.steps",
            alpha="omd.tabular.alpha",
        ),
    shell:
        "diffmbrl run plots.fig_omd_3 --input tabular {input.tabular} "
        "--input bounds {input.bounds} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_omd_4:
    input:
        cartpole="data/stats/{scale}/omd/cartpole.csv",
    output:
        **figure("omd/fig_4_width_and_distractors"),
    log:
        "logs/{scale}/omd/fig_4.log",
    params:
        *stage("plots.fig_omd_4", "scale", **OMD_NOTE),
    shell:
        "diffmbrl run plots.fig_omd_4 --input cartpole {input.cartpole} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_omd_5:
    input:
        curves="data/stats/{scale}/omd/curves.csv",
        predictions="data/results/{scale}/omd/predictions_width.parquet",
        width="data/results/{scale}/omd/cartpole_width.parquet",
    output:
        **figure("omd/fig_5_likelihood"),
    log:
        "logs/{scale}/omd/fig_5.log",
    params:
        *stage("plots.fig_omd_5", "scale", **OMD_NOTE),
    shell:
        "diffmbrl run plots.fig_omd_5 --input curves {input.curves} "
        "--input predictions {input.predictions} --input width {input.width} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_omd_6:
    input:
        tabular="data/stats/{scale}/omd/tabular.csv",
    output:
        **figure("omd/fig_6_noise"),
    log:
        "logs/{scale}/omd/fig_6.log",
    params:
        *stage(
            "plots.fig_omd_6",
            "scale",
            seeds="omd.tabular.seeds",
            steps="omd.tabular.steps",
        ),
    shell:
        "diffmbrl run plots.fig_omd_6 --input tabular {input.tabular} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_omd_7:
    input:
        curves="data/stats/{scale}/omd/curves.csv",
    output:
        **figure("omd/fig_7_ablation"),
    log:
        "logs/{scale}/omd/fig_7.log",
    params:
        *stage(
            "plots.fig_omd_7",
            "scale",
            adjoint_iterations="omd.cartpole.adjoint_iterations",
            **OMD_NOTE,
        ),
    shell:
        "diffmbrl run plots.fig_omd_7 --input curves {input.curves} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


OMD_SCALE = diffmbrl.scale("omd")
OMD_RUN = omd_experiments(OMD_SCALE)
TARGETS["omd"] = [
    *expand(
        outputs_of(
            "omd_",
            "fig_omd_",
            but=["omd_cartpole", "omd_cartpole_width", "omd_join"]
            + ["fig_omd_7"] * ("ablation" not in OMD_RUN),
        ),
        scale=OMD_SCALE,
        experiment="width",
    ),
    *expand(
        outputs_of("omd_join", but=["omd_join_width"]),
        scale=OMD_SCALE,
        experiment=[name for name in OMD_RUN if name != "width"],
    ),
]
