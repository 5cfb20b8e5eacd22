"""The commands of provenance: each a function of parsed arguments that returns an exit code."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import audit as audits
from diffmbrl.pipeline import manifests

CODES = "\n".join(f"  {code:3d}  {kind:10s}{text}" for kind, (code, text) in audits.KINDS.items())
AUDIT_HELP = f"""Rehashes every output and input, recomputes fingerprints, follows each chain to
raw data. Exit codes, the gravest of what was found:

    0  all is as recorded and current
    2  the command could not be carried out
{CODES}
"""
AGREE_HELP = """Holds the outputs here against released ones and gives each a verdict:

    same bytes         byte for byte
    same numbers       to a stated rounding
    same distribution  another draw of chaotic runs: no bias, at a stated power
    cannot be told     other numbers, and too few runs to tell a draw from a bias
    redrawn            a figure with other bytes
    differs            and in what by how much

Exit codes: 0 nothing differs, 2 the command could not be carried out, 7 something differs.
"""


def status(arguments: argparse.Namespace) -> int:
    """What is out of date and which change made it so; exit code 1 if anything is."""
    from diffmbrl.pipeline.explain import status as find

    total, pending = find(_config(arguments))
    if arguments.json:
        print_json({"jobs": total, "pending": [asdict(job) for job in pending]})
    else:
        for job in pending:
            print(f"{job.rule}: {', '.join(job.outputs)}")
            print(*(f"    {reason}" for reason in job.reasons), sep="\n")
        print(f"{len(pending)} of {total} jobs are out of date" if pending else "up to date")
    return 1 if pending else 0


def why(arguments: argparse.Namespace) -> int:
    """The chain from a result to raw data."""
    from diffmbrl.pipeline import explain

    chain = explain.why(_relative(arguments.path))
    print_json(chain) if arguments.json else print(*explain.tell(chain), sep="\n")
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Checks everything; exit code by the gravest kind of failure."""
    found = audits.audit()
    if arguments.json:
        print_json({**asdict(found), "code": found.code})
        return found.code
    for problem in found.problems:
        print(f"{problem.kind}: {problem.path}: {problem.detail}")
    accepted: dict[str, list[str]] = {}
    for entry in found.accepted:
        accepted.setdefault(f"{entry['when'][:10]}: {entry['reason']}", []).append(entry["path"])
    for why, paths in accepted.items():
        print(f"note: accepted {why}", *paths, sep="\n    ")
    elsewhere = ", ".join(f"{n} on {name}" for name, n in found.elsewhere.items())
    print(f"{found.checked} outputs checked, {len(found.problems)} problems", end="")
    print(f"; made on another platform than this machine's: {elsewhere}" if elsewhere else "")
    return found.code


def restore(arguments: argparse.Namespace) -> int:
    """Verifies bytes against manifests and puts Snakemake's records back."""
    from diffmbrl.pipeline import records
    from diffmbrl.pipeline.files import hashing

    written = records.reconcile()
    problems: list[audits.Problem] = []
    with hashing() as digest:
        for output in manifests.every():
            problems += audits.check_bytes(manifests.read(output), digest, {})
    if arguments.json:
        print_json({"records": written, "problems": [asdict(p) for p in problems]})
    else:
        for problem in problems:
            print(f"{problem.kind}: {problem.path}: {problem.detail}")
        print(f"{written} records written, {len(problems)} outputs not as their manifests say")
    return min((audits.KINDS[p.kind][0] for p in problems), default=0)


def replay(arguments: argparse.Namespace) -> int:
    """Retrains runs at random and compares them with their records; exit code 6 on a difference."""
    import importlib

    from diffmbrl.pipeline.replay import replay as rerun

    importlib.import_module(f"{LAYOUT.package}.{LAYOUT.setup}").configure(arguments.device)
    runs = rerun(
        arguments.n, arguments.seed, arguments.threads, arguments.within or "", arguments.tolerance
    )
    if arguments.json:
        print_json([asdict(run) for run in runs])
    else:
        for run in runs:
            where = ", ".join(f"{name}={value}" for name, value in run.run.items()) or "whole"
            print(f"{'same' if run.same else 'DIFFERENT'}: {run.output} [{where}] {run.detail}")
    return 0 if all(run.same for run in runs) else 6


def agree(arguments: argparse.Namespace) -> int:
    """Holds rebuilt results against released ones; exit code 7 if something differs."""
    from diffmbrl.pipeline.agree import agree as compare

    found = compare(arguments.place)
    if arguments.json:
        print_json({**asdict(found), "counts": found.counts, "code": found.code})
        return found.code
    for judged in found.judged:
        print(f"{judged.kind}: {judged.path}{': ' * bool(judged.detail)}{judged.detail}")
    for kind, paths in (("not here", found.not_here), ("not released", found.not_released)):
        folders: dict[Path, list[str]] = {}
        for path in map(Path, paths):
            folders.setdefault(path.parent, []).append(path.name)
        for folder, names in folders.items():
            print(f"{kind}: {folder}: {', '.join(names)}")
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(found.counts.items()))
    print(f"{len(found.judged)} outputs held against {found.release}: {counts or 'nothing'}")
    return found.code


def accept(arguments: argparse.Namespace) -> int:
    """Keeps results across a change that cannot matter."""
    from diffmbrl.pipeline.explain import accept as keep

    lines = keep([_relative(path) for path in arguments.path], arguments.reason)
    print_json(lines) if arguments.json else print(*lines, sep="\n")
    return 0


def recover(arguments: argparse.Namespace) -> int:
    """After a crash: nothing may run or be queued (else 4); unlocks, drops partial files."""
    from diffmbrl.pipeline.recover import recover as clear

    done = clear()
    if arguments.json:
        print_json(asdict(done))
    else:
        for path in done.partial:
            print(f"dropped {path}")
        print(f"{'unlocked' if done.unlocked else 'was not locked'}; run snakemake again")
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Nothing pending, audit clean, then dvc add and dvc push; 5 and the reason otherwise."""
    from diffmbrl.pipeline.publish import publish as give

    lines = give(_config(arguments), push=not arguments.no_push)
    print_json(lines) if arguments.json else print(*lines, sep="\n")
    return 0


def command(commands: Any, function: Callable, **kwargs: str) -> argparse.ArgumentParser:
    """Adds a function as a command of its name, its docstring as help, and `--json`."""
    text = function.__doc__ or ""
    parser = commands.add_parser(
        function.__name__, help=text[0].lower() + text[1:].rstrip("."),
        description=kwargs.pop("description", text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(command=function)
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def register(commands: Any) -> None:
    """Adds these commands to the subparsers of `diffmbrl`."""
    add = partial(command, commands)
    why_parser = add(why)
    why_parser.add_argument("path", help="a figure, statistic, result or dataset")
    for function in (status, publish):
        parser = add(function)
        parser.add_argument(
            "--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake"
        )
    parser.add_argument("--no-push", action="store_true", help="dvc add, but do not push")
    add(restore)
    add(audit, description=AUDIT_HELP)
    replay_parser = add(replay)
    replay_parser.add_argument("n", type=int, nargs="?", default=5, help="how many runs")
    replay_parser.add_argument("--seed", type=int, help="of the choice of runs")
    replay_parser.add_argument("--threads", type=int, default=1)
    replay_parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    replay_parser.add_argument("--within", help="only results whose path starts so")
    replay_parser.add_argument(
        "--tolerance", type=float, default=0.0, help="relative, for another device; 0: every byte"
    )
    agree_parser = add(agree, description=AGREE_HELP)
    agree_parser.add_argument(
        "place", nargs="?", default="HEAD", metavar="REV|FOLDER",
        help="a commit, or another checkout; the last commit if left out",
    )  # fmt: skip
    accept_parser = add(accept)
    accept_parser.add_argument("path", nargs="+")
    accept_parser.add_argument("--reason", required=True, help="why the change cannot matter")
    add(recover)


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for pair in arguments.config:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--config {pair}: give KEY=VALUE")
        config[key] = yaml.safe_load(value)
    return config


def _relative(path: str) -> str:
    absolute = Path(path).absolute()
    here = Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else path


def print_json(value: Any) -> None:
    """Prints a value for programs."""
    json.dump(value, sys.stdout, indent=1, sort_keys=True)
    print()
