"""Speed of the implicit paper: runs per second, against one run a process, and against bounds.

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

from diffmbrl.sweep import device

device.configure("cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import lineax  # noqa: E402
import numpy as np  # noqa: E402

from diffmbrl import config as configuration  # noqa: E402
from diffmbrl.implicit import schedule, train  # noqa: E402
from diffmbrl.implicit.domains import DOMAINS  # noqa: E402
from diffmbrl.solve import GCR, Operator  # noqa: E402
from diffmbrl.sweep import engine  # noqa: E402
from diffmbrl.sweep.grid import grid  # noqa: E402

ROOT = Path(__file__).parents[1]
SETTINGS = configuration.load(ROOT)["scales"]["laptop"]["implicit"]
PUBLISHED_SECONDS = (15.9, 22.4)  # a run of the released program, from its own records
# Times that a calm update reads or writes the model's matrix, in float64: the softmax 4.5, two
# products, the step 3, and about 13 products in float32.
PASSES = 16


def problem(domain, parameterization, runs):
    """A program, data of one seed, and configs spread over rates, etas and offsets."""
    n, seeds = DOMAINS[domain].n_features, SETTINGS["seeds"][:1]
    path = ROOT / f"data/datasets/laptop/implicit/{domain}.parquet"
    data = train.arrays(path, domain, seeds, SETTINGS["updates"], SETTINGS["batch_size"], 1)
    axes = grid({
        "seed": [0], "learning_rate": SETTINGS["learning_rates"][domain][parameterization],
        "eta": SETTINGS["etas"][parameterization],
        "reward_offset": SETTINGS["reward_offsets"][parameterization],
    })  # fmt: skip
    some = np.linspace(0, len(axes["eta"]) - 1, runs).astype(int)
    program = train.program(
        train.models(parameterization, n), SETTINGS["updates"], SETTINGS["log_every"],
        train.lanes(n),
    )  # fmt: skip
    return program, {name: values[some] for name, values in axes.items()}, data


def seconds(program, configs, data, threads):
    """Wall time of a sweep, compilation left out (median of three)."""
    few = {name: values[: program.lanes] for name, values in configs.items()}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        engine.run(program, few, data, threads=threads)
        compile_and_few = time.perf_counter() - start
        start = time.perf_counter()
        engine.run(program, configs, data, threads=threads)
        times.append(time.perf_counter() - start - compile_and_few)
    return float(np.median(times))


def one_process(domain, parameterization):
    """Wall time of a process that trains one run, the published way."""
    settings = {
        "domain": domain, "parameterization": parameterization, "seeds": SETTINGS["seeds"][:1],
        "learning_rates": SETTINGS["learning_rates"][domain][parameterization][3:4],
        "etas": [0.9], "reward_offsets": [0.5], "actions": 1, "backups": ["max"], "temperature": 1,
        **{k: SETTINGS[k] for k in ("updates", "log_every", "batch_size")},
    }  # fmt: skip
    code = (
        "import sys, json; from pathlib import Path\n"
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
    """Bytes a second that one thread moves in passes over four float64 arrays of n x n.

    The bound on an update, whose working set that is: its few operations a byte are no bound.
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
    print(f"{'sweep':26}{'runs/s':>9}{'ms/update':>11}{'1 process':>11}{'ratio':>9}{'vs paper':>16}"
          f"{'GB/s':>7}{'of bound':>10}")  # fmt: skip
    for domain in DOMAINS:
        for parameterization in ("explicit", "implicit"):
            n = DOMAINS[domain].n_features
            runs = 5280 if n < 32 else 1056 if parameterization == "explicit" else arguments.runs
            runs *= 8 if (domain, parameterization) == ("four_rooms", "implicit") else 1
            program, configs, data = problem(domain, parameterization, runs)
            rate = (runs - program.lanes) / seconds(program, configs, data, arguments.threads)
            alone = one_process(domain, parameterization)
            paper = "-".join(f"{s * rate:.0f}" for s in PUBLISHED_SECONDS)
            print(f"{domain + ' ' + parameterization:26}{rate:9.1f}"
                  f"{1e3 * arguments.threads / rate / SETTINGS['updates']:11.4f}{alone:10.1f}s"
                  f"{alone * rate:9.0f}{paper:>16}", end="", flush=True)  # fmt: skip
            if parameterization == "implicit" and n >= train.EXACT_BELOW:
                moved = PASSES * 8 * n * n * SETTINGS["updates"] * rate / arguments.threads
                print(f"{moved / 1e9:7.1f}{moved / bandwidth(n):10.0%}", end="")
            print(flush=True)
    print("time against the number of runs (four rooms, implicit):")
    for runs in (64, 128, 256, 512):
        program, configs, data = problem("four_rooms", "implicit", runs)
        print(
            f"  {runs:4} runs {seconds(program, configs, data, arguments.threads):7.2f} s",
            flush=True,
        )
    print("one solve to 1e-10 against the number of states, ms: ours, lineax GMRES")
    for n in (11, 50, 121, 200, 400, 800):
        ours, theirs = solvers(n)
        print(
            f"  n={n:4} {1e3 * ours:8.3f} {1e3 * theirs:8.3f}  ratio {theirs / ours:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
