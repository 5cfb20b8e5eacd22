DOMAINS = ["chain", "four_rooms", "mountain_car"]
PARAMETERIZATIONS = ["explicit", "implicit", "implicit_mdp"]


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
    params:
        *stage(
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
            temperature="implicit.temperature",
        ),
    threads: workflow.cores
    shell:
        "diffmbrl run implicit.train --input dataset {input.dataset} "
        "--output runs {output.runs} " + JOB


TARGETS["implicit"] = expand(
    "data/results/{scale}/implicit/{domain}_{parameterization}.parquet",
    scale=diffmbrl.scale("implicit"),
    domain=DOMAINS,
    parameterization=PARAMETERIZATIONS,
)
