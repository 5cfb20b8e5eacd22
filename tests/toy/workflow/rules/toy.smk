rule toy_collect:
    output:
        data="data/datasets/{scale}/toy/{domain}.json",
    log:
        "logs/{scale}/toy/collect_{domain}.log",
    params:
        *stage("toy.collect", size="toy.size.{domain}"),
    shell:
        "diffmbrl run toy.collect --output data {output.data} " + JOB


rule toy_train:
    input:
        data="data/datasets/{scale}/toy/{domain}.json",
    output:
        runs="data/results/{scale}/toy/{domain}_{method}.parquet",
    log:
        "logs/{scale}/toy/train_{domain}_{method}.log",
    params:
        *stage("toy.train", "method", rates="toy.rates.{method}", seeds="toy.seeds"),
    shell:
        "diffmbrl run toy.train --input data {input.data} --output runs {output.runs} "
        + JOB


rule toy_aggregate:
    input:
        runs=expand(
            "data/results/{{scale}}/toy/{domain}_{method}.parquet",
            domain=["a", "b"],
            method=["x", "y"],
        ),
    output:
        summary="data/stats/{scale}/toy/summary.json",
        number="data/stats/{scale}/toy/count.json",
    log:
        "logs/{scale}/toy/aggregate.log",
    params:
        *stage("toy.aggregate"),
    shell:
        "diffmbrl run toy.aggregate --input runs {input.runs} "
        "--output summary {output.summary} --output number {output.number} " + JOB


rule toy_draw:
    input:
        summary="data/stats/{scale}/toy/summary.json",
    output:
        **figure("toy/fig_1"),
    log:
        "logs/{scale}/toy/fig_1.log",
    params:
        *stage("toy.draw", title="toy.title"),
    shell:
        "diffmbrl run toy.draw --input summary {input.summary} "
        "--output pdf {output.pdf} --output png {output.png} " + JOB


TARGETS["toy"] = expand(
    outputs_of("toy_"),
    scale=diffmbrl.scale("toy"),
    domain=["a", "b"],
    method=["x", "y"],
)
