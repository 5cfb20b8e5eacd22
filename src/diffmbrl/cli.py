"""The `diffmbrl` command: what Snakemake calls and what a person calls."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import diffmbrl.pinned  # noqa: F401  (before NumPy)
from diffmbrl.errors import UserError
from diffmbrl.pipeline import commands as provenance
from diffmbrl.pipeline import verdict_commands

_COMPARE_EXITS = "exit code: 0 agrees, 1 below the bar, 2 wrong or missing input"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. Errors that are the user's are one line."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except UserError as error:
        print(f"diffmbrl: error: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("diffmbrl: interrupted; nothing partial was left in place", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from diffmbrl.pipeline.ending import logged
    from diffmbrl.pipeline.wrapper import run_stage

    with logged(arguments.log) as log:
        run_stage(
            arguments.stage,
            arguments.plan,
            {role: [Path(path) for path in paths] for role, *paths in arguments.input},
            {role: Path(path) for role, path in arguments.output},
            threads=arguments.threads,
            device=arguments.device,
            packages=arguments.environment,
            log=log,
        )
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from diffmbrl.config import check_scale, scales
    from diffmbrl.implicit import report

    if known := scales():
        check_scale(arguments.scale, known, f"--scale {arguments.scale}")
    return report.main(arguments)


def _config(arguments: argparse.Namespace) -> int:
    import json

    from diffmbrl import config, settings

    loaded = config.load()
    if arguments.paper not in (None, *config.papers()):
        known = ", ".join(config.papers())
        raise UserError(f"config {arguments.paper}: no such paper; use one of {known}")
    scale = arguments.scale or loaded.scale
    config.check_scale(scale, list(loaded.scales), f"--scale {scale}")
    for paper in [arguments.paper] if arguments.paper else [None, *loaded.scales[scale]]:
        group = config.settings_type(paper) if paper else config.TopLevel
        values = loaded.settings(paper, scale) if paper else vars(loaded)
        print(f"# config/{paper or config.TOP_LEVEL}.yaml" + (f", scale {scale}" if paper else ""))
        for key, text in settings.describe(group):
            shown = "" if "<name>" in key else json.dumps(config.lookup(values, key))
            print(f"{key}: {text}" + (f" Now {shown}" if 0 < len(shown) < 80 else ""))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diffmbrl", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run one stage (what Snakemake calls)")
    run.set_defaults(command=_run)
    run.add_argument("stage", help="the stage's module, such as implicit.train")
    run.add_argument("--input", nargs="+", action="append", default=[], metavar="NAME PATH")
    run.add_argument("--output", nargs=2, action="append", default=[], metavar=("NAME", "PATH"))
    run.add_argument("--threads", type=int, default=1)
    run.add_argument("--log", type=Path, help="a file that gets errors too")
    run.add_argument("--device", default="auto", help="auto, cpu or gpu")
    run.add_argument(
        "--environment",
        default="locked",
        choices=("locked", "any"),
        help="whether packages that are not the lock's are refused or named in the result",
    )
    run.add_argument(
        "--plan",
        nargs="*",
        default=[],
        metavar="NAME=JSON",
        help="settings, and the code that the rule was planned with, NAME@HASH each",
    )
    compare = commands.add_parser("compare", help="hold our results against published numbers")
    papers = compare.add_subparsers(required=True, metavar="PAPER")
    implicit = papers.add_parser("implicit", help="Gehring et al. 2021", epilog=_COMPARE_EXITS)
    implicit.set_defaults(command=_compare)
    implicit.add_argument("--scale", default="laptop")
    implicit.add_argument(
        "--published", type=Path, metavar="FOLDER_OR_PARQUET",
        help="the authors' released run logs: compares run by run as well",
    )  # fmt: skip
    keys = commands.add_parser("config", help="every setting: what it means, and its value")
    keys.set_defaults(command=_config)
    keys.add_argument("paper", nargs="?", help="one paper's settings only")
    keys.add_argument("--scale", help="whose values are shown; by default the configured one")
    provenance.register(commands)
    verdict_commands.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
