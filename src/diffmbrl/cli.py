"""The `diffmbrl` command: what Snakemake calls and what a person calls."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.pipeline import commands as provenance

_COMPARE_EXITS = "exit code: 0 agrees, 1 below the bar, 2 wrong or missing input"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. Errors that are the user's are one line."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except UserError as error:
        print(f"diffmbrl: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("diffmbrl: interrupted; nothing partial was left in place", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from diffmbrl.pipeline.wrapper import logged, run_stage

    def prepare():
        from diffmbrl.sweep import device

        device.configure(arguments.device)

    with logged(arguments.log):
        run_stage(
            arguments.stage,
            arguments.settings,
            {name: [Path(path) for path in paths] for name, *paths in arguments.input},
            {name: Path(path) for name, path in arguments.output},
            threads=arguments.threads,
            prepare=prepare,
        )
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from diffmbrl.config import check_scale, scales
    from diffmbrl.implicit import report

    if known := scales():
        check_scale(arguments.scale, known, f"--scale {arguments.scale}")
    return report.main(arguments)


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
        "--settings", nargs="*", default=[], metavar="NAME=JSON",
        help="settings, and the code that the rule was planned with, NAME@HASH each",
    )  # fmt: skip
    compare = commands.add_parser("compare", help="hold our results against published numbers")
    papers = compare.add_subparsers(required=True, metavar="PAPER")
    implicit = papers.add_parser("implicit", help="Gehring et al. 2021", epilog=_COMPARE_EXITS)
    implicit.set_defaults(command=_compare)
    implicit.add_argument("--scale", default="laptop")
    implicit.add_argument(
        "--published", type=Path, metavar="FOLDER_OR_PARQUET",
        help="the authors' released run logs: compares run by run as well",
    )  # fmt: skip
    provenance.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
