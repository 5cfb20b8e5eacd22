DOMAINS = ["chain", "four_rooms", "mountain_car"]
PARAMETERIZATIONS = ["explicit", "implicit", "implicit_mdp"]


def cores_of_sweep(wildcards):
    """All cores for the long sweeps; the short ones, mostly compilation, run side by side."""
    short = wildcards.domain == "chain" or wildcards.parameterization == "explicit"
    return 1 if short else workflow.cores


wildcard_constraints:
    domain="|".join(DOMAINS),
    parameterization="|".join(PARAMETERIZATIONS),


rule implicit_collect:
    output:
        dataset="data/datasets/{scale}/implicit/{domain}.parquet",
    log:
        "logs/{scale}/implicit/collect_{domain}.log",
    params:
        *stage(
            "implicit.collect",
            "domain",
            seeds="implicit.seeds",
            epsilon="implicit.epsilon",
            trajectories="implicit.trajectories.{domain}",
            steps="implicit.steps.{domain}",
            evaluation_steps="implicit.evaluation_steps",
        ),
    shell:
        "diffmbrl run implicit.collect --output dataset {output.dataset} " + JOB


rule implicit_train:
    input:
        dataset="data/datasets/{scale}/implicit/{domain}.parquet",
    output:
        runs="data/results/{scale}/implicit/{domain}_{parameterization}.parquet",
    log:
        "logs/{scale}/implicit/train_{domain}_{parameterization}.log",
    threads: cores_of_sweep
    params:
        *stage(
            "implicit.train",
            "domain",
            "parameterization",
            seeds="implicit.seeds",
            updates="implicit.updates",
            log_every="implicit.log_every",
            batch_size="implicit.batch_size",
            learning_rates="implicit.learning_rates.{domain}.{parameterization}",
            etas="implicit.etas.{parameterization}",
            reward_offsets="implicit.reward_offsets.{parameterization}",
            actions="implicit.actions.{parameterization}",
            backups="implicit.backups.{parameterization}",
            temperature="implicit.temperature.{parameterization}",
        ),
    shell:
        "diffmbrl run implicit.train --input dataset {input.dataset} "
        "--output runs {output.runs} " + JOB


rule implicit_aggregate:
    input:
        runs=expand(
            "data/results/{{scale}}/implicit/{domain}_{parameterization}.parquet",
            domain=DOMAINS,
            parameterization=PARAMETERIZATIONS,
        ),
    output:
        summary="data/stats/{scale}/implicit/summary.csv",
        selected="data/stats/{scale}/implicit/selected.csv",
        curves="data/stats/{scale}/implicit/curves.csv",
    log:
        "logs/{scale}/implicit/aggregate.log",
    params:
        *stage("implicit.aggregate"),
    shell:
        "diffmbrl run implicit.aggregate --input runs {input.runs} "
        "--output summary {output.summary} --output selected {output.selected} "
        "--output curves {output.curves} " + JOB


rule implicit_compare:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
    output:
        table="data/stats/{scale}/implicit/compare.csv",
        metrics=shown(
            "data/stats/{scale}/implicit/compare.json", "ours against published"
        ),
    log:
        "logs/{scale}/implicit/compare.log",
    params:
        *stage("implicit.compare"),
    shell:
        "diffmbrl run implicit.compare --input summary {input.summary} "
        "--output table {output.table} --output metrics {output.metrics} " + JOB


rule fig_implicit_1:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
    output:
        **figure("implicit/fig_1_initial_residual"),
    log:
        "logs/{scale}/implicit/fig_1.log",
    params:
        *stage(
            "plots.fig_implicit_1",
            "scale",
            seeds="implicit.seeds",
            updates="implicit.updates",
        ),
    shell:
        "diffmbrl run plots.fig_implicit_1 --input summary {input.summary} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_implicit_2:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
        selected="data/stats/{scale}/implicit/selected.csv",
    output:
        **figure("implicit/fig_2_final_residual"),
    log:
        "logs/{scale}/implicit/fig_2.log",
    params:
        *stage(
            "plots.fig_implicit_2",
            "scale",
            seeds="implicit.seeds",
            updates="implicit.updates",
        ),
    shell:
        "diffmbrl run plots.fig_implicit_2 --input summary {input.summary} "
        "--input selected {input.selected} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_implicit_3:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
        selected="data/stats/{scale}/implicit/selected.csv",
    output:
        **figure("implicit/fig_3_eta"),
    log:
        "logs/{scale}/implicit/fig_3.log",
    params:
        *stage(
            "plots.fig_implicit_3",
            "scale",
            seeds="implicit.seeds",
            updates="implicit.updates",
        ),
    shell:
        "diffmbrl run plots.fig_implicit_3 --input summary {input.summary} "
        "--input selected {input.selected} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_implicit_a1:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
    output:
        **figure("implicit/fig_A1_offsets_{domain}_{parameterization}"),
    log:
        "logs/{scale}/implicit/fig_A1_{domain}_{parameterization}.log",
    params:
        *stage(
            "plots.fig_implicit_a1",
            "scale",
            "domain",
            "parameterization",
            seeds="implicit.seeds",
            updates="implicit.updates",
        ),
    shell:
        "diffmbrl run plots.fig_implicit_a1 --input summary {input.summary} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_implicit_a2:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
        selected="data/stats/{scale}/implicit/selected.csv",
    output:
        **figure("implicit/fig_A2_every_eta"),
    log:
        "logs/{scale}/implicit/fig_A2.log",
    params:
        *stage(
            "plots.fig_implicit_a2",
            "scale",
            seeds="implicit.seeds",
            updates="implicit.updates",
        ),
    shell:
        "diffmbrl run plots.fig_implicit_a2 --input summary {input.summary} "
        "--input selected {input.selected} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_implicit_a3:
    input:
        summary="data/stats/{scale}/implicit/summary.csv",
        selected="data/stats/{scale}/implicit/selected.csv",
    output:
        **figure("implicit/fig_A3_multi_action"),
    log:
        "logs/{scale}/implicit/fig_A3.log",
    params:
        *stage(
            "plots.fig_implicit_a3",
            "scale",
            seeds="implicit.seeds",
            updates="implicit.updates",
            actions="implicit.actions.implicit_mdp",
        ),
    shell:
        "diffmbrl run plots.fig_implicit_a3 --input summary {input.summary} "
        "--input selected {input.selected} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


# Every stage's output, not only the last ones: one that is deleted is then made again.
TARGETS["implicit"] = [
    *expand(
        outputs_of("implicit_", "fig_implicit_", but=["fig_implicit_a1"]),
        scale=diffmbrl.scale("implicit"),
        domain=DOMAINS,
        parameterization=PARAMETERIZATIONS,
    ),
    *expand(
        outputs_of("fig_implicit_a1"),
        scale=diffmbrl.scale("implicit"),
        domain=DOMAINS,
        parameterization=["explicit", "implicit"],
    ),
]
