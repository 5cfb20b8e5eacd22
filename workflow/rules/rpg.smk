ESTIMATORS = ["sac", "rp_dp", "rp_dr", "lr"]
RPG = "data/results/{scale}/rpg"
RPG_STATS = "data/stats/{scale}/rpg"


wildcard_constraints:
    estimator="|".join(ESTIMATORS),


rule rpg_train:
    output:
        returns=f"{RPG}/train_{{estimator}}.parquet",
        snapshots=f"{RPG}/snapshots_{{estimator}}.npy",
    log:
        "logs/{scale}/rpg/train_{estimator}.log",
    params:
        *stage(
            "rpg.train",
            "estimator",
            task="rpg.task",
            horizon="rpg.horizons.{estimator}",
            learner="rpg.learner",
            schedule="rpg.schedule",
            runs="rpg.runs.{estimator}",
        ),
    shell:
        "diffmbrl run rpg.train --output returns {output.returns} "
        "--output snapshots {output.snapshots} " + JOB


rule rpg_returns:
    input:
        parts=expand(
            f"{RPG}/train_{{estimator}}.parquet",
            estimator=ESTIMATORS,
            allow_missing=True,
        ),
    output:
        returns=f"{RPG}/returns.parquet",
    log:
        "logs/{scale}/rpg/returns.log",
    params:
        *stage("rpg.returns"),
    shell:
        "diffmbrl run rpg.returns --input parts {input.parts} --output returns {output.returns} "
        + JOB


rule rpg_gradients:
    input:
        snapshots=f"{RPG}/snapshots_rp_dp.npy",
    output:
        gradients=f"{RPG}/gradients.parquet",
    log:
        "logs/{scale}/rpg/gradients.log",
    threads: workflow.cores
    params:
        *stage(
            "rpg.gradients",
            task="rpg.task",
            horizon="rpg.horizons.rp_dp",
            learner="rpg.learner",
            schedule="rpg.schedule",
            runs="rpg.runs.rp_dp",
            gradients="rpg.gradients",
        ),
    shell:
        "diffmbrl run rpg.gradients --input snapshots {input.snapshots} "
        "--output gradients {output.gradients} " + JOB


rule rpg_landscape:
    input:
        snapshots=f"{RPG}/snapshots_rp_dp.npy",
    output:
        landscape=f"{RPG}/landscape.parquet",
    log:
        "logs/{scale}/rpg/landscape.log",
    params:
        *stage(
            "rpg.landscape",
            task="rpg.task",
            horizon="rpg.horizons.rp_dp",
            learner="rpg.learner",
            schedule="rpg.schedule",
            runs="rpg.runs.rp_dp",
            landscape="rpg.landscape",
        ),
    shell:
        "diffmbrl run rpg.landscape --input snapshots {input.snapshots} "
        "--output landscape {output.landscape} " + JOB


rule rpg_horizon:
    output:
        horizon=f"{RPG}/horizon.parquet",
    log:
        "logs/{scale}/rpg/horizon.log",
    params:
        *stage("rpg.horizon", horizon_study="rpg.horizon_study"),
    shell:
        "diffmbrl run rpg.horizon --output horizon {output.horizon} " + JOB


rule rpg_smoothness:
    output:
        smoothness=f"{RPG}/smoothness.parquet",
    log:
        "logs/{scale}/rpg/smoothness.log",
    params:
        *stage("rpg.smoothness", smoothness="rpg.smoothness"),
    shell:
        "diffmbrl run rpg.smoothness --output smoothness {output.smoothness} " + JOB


rule rpg_theory:
    output:
        theory=f"{RPG}/theory.parquet",
    log:
        "logs/{scale}/rpg/theory.log",
    params:
        *stage("rpg.theory", theory="rpg.theory"),
    shell:
        "diffmbrl run rpg.theory --output theory {output.theory} " + JOB


rule rpg_aggregate:
    input:
        returns=f"{RPG}/returns.parquet",
        gradients=f"{RPG}/gradients.parquet",
        horizon=f"{RPG}/horizon.parquet",
        smoothness=f"{RPG}/smoothness.parquet",
        theory=f"{RPG}/theory.parquet",
    output:
        returns=f"{RPG_STATS}/returns.csv",
        gradients=f"{RPG_STATS}/gradients.csv",
        horizon=f"{RPG_STATS}/horizon.csv",
        smoothness=f"{RPG_STATS}/smoothness.csv",
        theory=f"{RPG_STATS}/theory.csv",
        claims=f"{RPG_STATS}/claims.csv",
    log:
        "logs/{scale}/rpg/aggregate.log",
    params:
        *stage("rpg.aggregate"),
    shell:
        "diffmbrl run rpg.aggregate "
        "--input returns {input.returns} "
        "--input gradients {input.gradients} "
        "--input horizon {input.horizon} "
        "--input smoothness {input.smoothness} "
        "--input theory {input.theory} "
        "--output returns {output.returns} "
        "--output gradients {output.gradients} "
        "--output horizon {output.horizon} "
        "--output smoothness {output.smoothness} "
        "--output theory {output.theory} "
        "--output claims {output.claims} " + JOB


rule fig_rpg_1:
    input:
        returns=f"{RPG_STATS}/returns.csv",
    output:
        **figure("rpg/fig_1_returns"),
    log:
        "logs/{scale}/rpg/fig_1.log",
    params:
        *stage("plots.fig_rpg_1", "scale", schedule="rpg.schedule"),
    shell:
        "diffmbrl run plots.fig_rpg_1 --input returns {input.returns} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_2:
    input:
        gradients=f"{RPG_STATS}/gradients.csv",
    output:
        **figure("rpg/fig_2_variance_bias"),
    log:
        "logs/{scale}/rpg/fig_2.log",
    params:
        *stage(
            "plots.fig_rpg_2", "scale", schedule="rpg.schedule", plan="rpg.gradients"
        ),
    shell:
        "diffmbrl run plots.fig_rpg_2 --input gradients {input.gradients} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_3:
    input:
        landscape=f"{RPG}/landscape.parquet",
    output:
        **figure("rpg/fig_3_landscape"),
    log:
        "logs/{scale}/rpg/fig_3.log",
    params:
        *stage(
            "plots.fig_rpg_3", "scale", schedule="rpg.schedule", plan="rpg.landscape"
        ),
    shell:
        "diffmbrl run plots.fig_rpg_3 --input landscape {input.landscape} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_4:
    input:
        horizon=f"{RPG_STATS}/horizon.csv",
    output:
        **figure("rpg/fig_4_best_horizon"),
    log:
        "logs/{scale}/rpg/fig_4.log",
    params:
        *stage("plots.fig_rpg_4", "scale", plan="rpg.horizon_study"),
    shell:
        "diffmbrl run plots.fig_rpg_4 --input horizon {input.horizon} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_5:
    input:
        returns=f"{RPG_STATS}/returns.csv",
    output:
        **figure("rpg/fig_5_lipschitz"),
    log:
        "logs/{scale}/rpg/fig_5.log",
    params:
        *stage("plots.fig_rpg_5", "scale", schedule="rpg.schedule"),
    shell:
        "diffmbrl run plots.fig_rpg_5 --input returns {input.returns} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_6:
    input:
        smoothness=f"{RPG_STATS}/smoothness.csv",
    output:
        **figure("rpg/fig_6_smoothness"),
    log:
        "logs/{scale}/rpg/fig_6.log",
    params:
        *stage("plots.fig_rpg_6", "scale", plan="rpg.smoothness"),
    shell:
        "diffmbrl run plots.fig_rpg_6 --input smoothness {input.smoothness} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_7:
    input:
        gradients=f"{RPG_STATS}/gradients.csv",
        returns=f"{RPG_STATS}/returns.csv",
    output:
        **figure("rpg/fig_7_placement"),
    log:
        "logs/{scale}/rpg/fig_7.log",
    params:
        *stage(
            "plots.fig_rpg_7", "scale", schedule="rpg.schedule", plan="rpg.gradients"
        ),
    shell:
        "diffmbrl run plots.fig_rpg_7 --input gradients {input.gradients} --input returns {input.returns} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


rule fig_rpg_8:
    input:
        theory=f"{RPG_STATS}/theory.csv",
    output:
        **figure("rpg/fig_8_theory"),
    log:
        "logs/{scale}/rpg/fig_8.log",
    params:
        *stage("plots.fig_rpg_8", "scale", plan="rpg.theory"),
    shell:
        "diffmbrl run plots.fig_rpg_8 --input theory {input.theory} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


TARGETS["rpg"] = expand(
    outputs_of("rpg_", "fig_rpg_"),
    scale=diffmbrl.scale("rpg"),
    estimator=ESTIMATORS,
)
