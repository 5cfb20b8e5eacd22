"""Speed of the implicit paper: runs per second, against one run per process, and against bounds.

    python bench/implicit.py [--runs 48] [--threads 2]

Needs the datasets: `snakemake --cores 2 implicit` makes them. Rates are wall-clock, so let
nothing else run; ratios are taken within one call.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import diffmbrl.pinned  # noqa: F401  (before NumPy)
from diffmbrl.sweep import device

device.configure("cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import lineax  # noqa: E402
import numpy as np  # noqa: E402

from diffmbrl import config as configuration  # noqa: E402
from diffmbrl import registry  # noqa: E402
from diffmbrl.implicit import schedule, train  # noqa: E402
from diffmbrl.solve import GCR, Operator  # noqa: E402
from diffmbrl.sweep.grid import grid  # noqa: E402

ROOT = Path(__file__).parents[1]
SETTINGS = configuration.load(ROOT).settings("implicit", "laptop")
PUBLISHED_SECONDS = (15.9, 22.4)  # a run of the released program, from its own records
# Times that a calm update reads or writes the matrix, in float64: weights 3, their sums 1,
# three products, the step 2.5, and about 13 products in float32.
PASSES = 16


def models_of(domain, parameterization):
    """A parameterization's models of a domain's features."""
    n = registry.load("implicit.domains", domain).DOMAIN.n_features
    return registry.load("implicit.parameterizations", parameterization).models(n)


def dataset(domain):
    """Where the transitions of a domain lie."""
    return ROOT / f"data/datasets/laptop/implicit/{domain}.parquet"


def problem(domain, parameterization, runs):
    """A program, configs, data and width: some runs of one seed, or all runs of all seeds."""
    entry = registry.load("implicit.domains", domain).DOMAIN
    seeds = SETTINGS["seeds"][: 1 if runs else None]
    data = train.arrays(
        dataset(domain), entry, seeds, SETTINGS["updates"], SETTINGS["batch_size"], 1
    )
    sweep = SETTINGS["parameterizations"][parameterization]
    axes = grid({
        "seed": np.arange(len(seeds)),
        "learning_rate": sweep["learning_rates"][domain],
        "eta": sweep["etas"],
        "reward_offset": sweep["reward_offsets"],
    })  # fmt: skip
    last = len(axes["eta"]) - 1
    some = np.linspace(0, last, runs or last + 1).astype(int)
    models = models_of(domain, parameterization)
    program = train.program(models, SETTINGS["updates"], SETTINGS["log_every"])
    return program, {name: values[some] for name, values in axes.items()}, data, models.width


def rate(task, threads):
    """Runs per second of a problem, compilation left out (median of three)."""
    program, configs, data, width = task
    few = {name: values[:1] for name, values in configs.items()}
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        train.train(program, few, data, width, threads=threads)
        compile_and_few = time.perf_counter() - start
        start = time.perf_counter()
        train.train(program, configs, data, width, threads=threads)
        spent = time.perf_counter() - start - compile_and_few
        rates.append((len(configs["seed"]) - width) / spent)
    return float(np.median(rates))


def one_process(domain, parameterization):
    """Wall time of a process that trains one run, the published way."""
    rates = SETTINGS["parameterizations"][parameterization]["learning_rates"][domain]
    settings = {
        "domain": domain, "parameterization": parameterization, "seeds": SETTINGS["seeds"][:1],
        "learning_rates": rates[3:4],
        "etas": [0.9], "reward_offsets": [0.5], "actions": 1, "backups": ["max"], "temperature": 1,
        **{k: SETTINGS[k] for k in ("updates", "log_every", "batch_size")},
    }  # fmt: skip
    code = (
        "import sys, json; from pathlib import Path; import diffmbrl.pinned\n"
        "from diffmbrl.sweep import device; device.configure('cpu')\n"
        "from diffmbrl.implicit import train; from diffmbrl.pipeline.stage import Job\n"
        "s, data, out = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])\n"
        "train.run(Job(s, {'dataset': [data]}, {'runs': out / 'r'}, 1, out / 's'))\n"
    )
    path = ROOT / f"data/datasets/laptop/implicit/{domain}.parquet"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(settings), str(path), folder],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - start


def bandwidth(n):
    """Bytes per second that one thread moves in passes over four float64 arrays of n x n.

    The bound on an update, whose working set that is: its few operations per byte are no bound.
    """
    arrays = jnp.ones((4, n, n))
    passes = max(20, 40_000_000 // arrays.size)
    many = jax.jit(lambda x: jax.lax.fori_loop(0, passes, lambda _, x: x * 1.0000001, x))
    jax.block_until_ready(many(arrays))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(many(arrays))
        times.append((time.perf_counter() - start) / passes)
    return 2 * arrays.nbytes / float(np.median(times))


def solvers(n):
    """Seconds of a solve to 1e-10 by our GCR and by lineax's GMRES."""
    w, F = schedule.initial_parameters(jax.random.PRNGKey(0), n)
    P, b = jax.nn.softmax(F[:, 0], axis=-1), w[:, 0]

    def gcr(b):
        return GCR(rtol=1e-10).solve(Operator(lambda v: v - 0.95 * (P @ v)), b)

    def gmres(b):
        operator = lineax.FunctionLinearOperator(
            lambda v: v - 0.95 * (P @ v), jax.ShapeDtypeStruct((n,), b.dtype)
        )
        solver = lineax.GMRES(rtol=1e-10, atol=0.0, restart=20)
        return lineax.linear_solve(operator, b, solver, throw=False).value

    times = []
    for solve in (gcr, gmres):
        many = jax.jit(lambda b, s=solve: jax.lax.fori_loop(0, 20, lambda _, x: s(b + 1e-9 * x), b))
        jax.block_until_ready(many(b))
        start = time.perf_counter()
        jax.block_until_ready(many(b))
        times.append((time.perf_counter() - start) / 20)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=48, help="runs of the slowest sweep")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for path in map(dataset, registry.names("implicit.domains")):
        if not path.is_file():
            name = path.relative_to(ROOT)
            make = f"snakemake --cores 1 {name}"
            parser.error(f"{name}: not there; `dvc pull` fetches it, `{make}` makes it")
    print(f"{'sweep':26}{'runs/s':>9}{'ms/update':>11}{'1 process':>11}{'ratio':>9}{'vs paper':>16}"
          f"{'GB/s':>7}{'of bound':>10}")  # fmt: skip
    for domain in registry.names("implicit.domains"):
        for parameterization in ("explicit", "implicit"):
            n = registry.load("implicit.domains", domain).DOMAIN.n_features
            many = models_of(domain, parameterization).width > 1
            runs = arguments.runs * (1 if domain == "mountain_car" else 8)
            task = problem(domain, parameterization, None if many else runs)
            speed = rate(task, arguments.threads)
            alone = one_process(domain, parameterization)
            paper = "-".join(f"{s * speed:.0f}" for s in PUBLISHED_SECONDS)
            print(f"{domain + ' ' + parameterization:26}{speed:9.1f}"
                  f"{1e3 * arguments.threads / speed / SETTINGS['updates']:11.4f}{alone:10.1f}s"
                  f"{alone * speed:9.0f}{paper:>16}", end="", flush=True)  # fmt: skip
            if not many:
                moved = PASSES * 8 * n * n * SETTINGS["updates"] * speed / arguments.threads
                print(f"{moved / 1e9:7.1f}{moved / bandwidth(n):10.0%}", end="")
            print(flush=True)
    print("time against the number of runs (four rooms, implicit):")
    for runs in (64, 128, 256, 512):
        speed = rate(problem("four_rooms", "implicit", runs), arguments.threads)
        print(f"  {runs:4} runs {runs / speed:7.2f} s", flush=True)
    print("one solve to 1e-10 against the number of states, ms: ours, lineax GMRES")
    for n in (11, 50, 121, 200, 400, 800):
        ours, theirs = solvers(n)
        print(
            f"  n={n:4} {1e3 * ours:8.3f} {1e3 * theirs:8.3f}  ratio {theirs / ours:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
