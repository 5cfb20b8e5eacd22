"""The toy's rules."""

from diffmbrl.pipeline.rule import Rule, every

RULES = (
    Rule(
        "toy.collect",
        outputs={"data": "datasets/{domain}.json"},
        settings=("size=size.{domain}",),
        over=lambda settings: every(domain=settings["size"]),
    ),
    Rule(
        "toy.train",
        inputs={"data": "toy.collect.data"},
        outputs={"runs": "results/{domain}_{method}.parquet"},
        settings=("rates=rates.{method}", "seeds"),
        over=lambda settings: every(domain=settings["size"], method=settings["rates"]),
    ),
    Rule(
        "toy.aggregate",
        inputs={"runs": "toy.train.runs"},
        outputs={"summary": "stats/summary.json", "number": "stats/count.json"},
    ),
    Rule(
        "toy.draw",
        inputs={"summary": "toy.aggregate.summary"},
        outputs={"pdf": "figures/fig_1.pdf", "png": "figures/fig_1.png"},
        settings=("title",),
        facts={"methods": "toy.methods"},
        shown=("png",),
    ),
)
