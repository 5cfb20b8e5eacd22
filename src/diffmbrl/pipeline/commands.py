"""The commands of provenance: each a function of parsed arguments that returns an exit code."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from diffmbrl.errors import UserError
from diffmbrl.pipeline import audit as audits
from diffmbrl.pipeline import manifest

CODES = "\n".join(f"  {code:3d}  {kind:10s}{text}" for kind, (code, text) in audits.KINDS.items())
AUDIT_HELP = f"""Rehashes every output and input, recomputes fingerprints, follows each chain to
raw data. Exit codes, the gravest of what was found:

    0  all is as recorded and current
    2  the command could not be carried out
{CODES}
"""


def status(arguments: argparse.Namespace) -> int:
    """What is out of date and which change made it so; exit code 1 if anything is."""
    from diffmbrl.pipeline.explain import status as find

    total, pending = find(_config(arguments))
    if arguments.json:
        _print_json({"jobs": total, "pending": [asdict(job) for job in pending]})
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
    _print_json(chain) if arguments.json else print(*explain.tell(chain), sep="\n")
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Checks everything; exit code by the gravest kind of failure."""
    found = audits.audit()
    if arguments.json:
        _print_json({**asdict(found), "code": found.code})
        return found.code
    for problem in found.problems:
        print(f"{problem.kind}: {problem.path}: {problem.detail}")
    accepted: dict[str, list[str]] = {}
    for entry in found.accepted:
        accepted.setdefault(f"{entry['when'][:10]}: {entry['reason']}", []).append(entry["path"])
    for why, paths in accepted.items():
        print(f"note: accepted {why}", *paths, sep="\n    ")
    print(f"{found.checked} outputs checked, {len(found.problems)} problems")
    return found.code


def restore(arguments: argparse.Namespace) -> int:
    """Verifies bytes against manifests and puts Snakemake's records back."""
    from diffmbrl.pipeline import records
    from diffmbrl.pipeline.files import hashing

    written = records.reconcile()
    problems: list[audits.Problem] = []
    with hashing() as digest:
        for path in manifest.every():
            made = manifest.read(path)
            problems += audits.check_bytes(made, digest, {})
    if arguments.json:
        _print_json({"records": written, "problems": [asdict(p) for p in problems]})
    else:
        for problem in problems:
            print(f"{problem.kind}: {problem.path}: {problem.detail}")
        print(f"{written} records written, {len(problems)} outputs not as their manifests say")
    return min((audits.KINDS[p.kind][0] for p in problems), default=0)


def replay(arguments: argparse.Namespace) -> int:
    """Retrains runs at random and compares them with their records; exit code 6 on a difference."""
    from diffmbrl.pipeline.replay import replay as rerun
    from diffmbrl.sweep import device

    device.configure(arguments.device)
    runs = rerun(
        arguments.n, arguments.seed, arguments.threads, arguments.within or "", arguments.tolerance
    )
    if arguments.json:
        _print_json([asdict(run) for run in runs])
    else:
        for run in runs:
            where = ", ".join(f"{name}={value}" for name, value in run.run.items()) or "whole"
            print(f"{'same' if run.same else 'DIFFERENT'}: {run.output} [{where}] {run.detail}")
    return 0 if all(run.same for run in runs) else 6


def accept(arguments: argparse.Namespace) -> int:
    """Keeps results across a change that cannot matter."""
    from diffmbrl.pipeline.explain import accept as keep

    lines = keep([_relative(path) for path in arguments.path], arguments.reason)
    _print_json(lines) if arguments.json else print(*lines, sep="\n")
    return 0


def recover(arguments: argparse.Namespace) -> int:
    """After a crash: checks that nothing runs, unlocks, drops partial files; 4 if it does."""
    from diffmbrl.pipeline.recover import recover as clear

    done = clear()
    if arguments.json:
        _print_json(asdict(done))
    else:
        print(*(f"dropped {path}" for path in done.partial), sep="\n", end="")
        print(f"{'unlocked' if done.unlocked else 'was not locked'}; run snakemake again")
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Nothing pending, audit clean, then dvc add and dvc push; 5 and the reason otherwise."""
    from diffmbrl.pipeline.publish import publish as give

    lines = give(_config(arguments), push=not arguments.no_push)
    _print_json(lines) if arguments.json else print(*lines, sep="\n")
    return 0


def register(commands: Any) -> None:
    """Adds these commands to the subparsers of `diffmbrl`."""

    def add(function: Callable, **kwargs) -> argparse.ArgumentParser:
        text = function.__doc__ or ""
        parser = commands.add_parser(
            function.__name__, help=text[0].lower() + text[1:].rstrip("."),
            description=kwargs.pop("description", text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        parser.set_defaults(command=function)
        parser.add_argument("--json", action="store_true", help="for programs")
        return parser

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


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, sort_keys=True)
    print()
