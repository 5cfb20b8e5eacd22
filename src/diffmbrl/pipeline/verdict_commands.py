"""The commands that show what holds: `diffmbrl claims` and `diffmbrl page`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from diffmbrl.config import check_scale, load
from diffmbrl.errors import UserError
from diffmbrl.pipeline.commands import command, print_json

PAGE = "report.html"


def claims(arguments: argparse.Namespace) -> int:
    """The verdict on every claim of the papers."""
    from diffmbrl.pipeline import documents, verdicts
    from diffmbrl.pipeline.files import write_atomic
    from diffmbrl.pipeline.workflow import Workflow

    work = Workflow(load())
    known = work.config.known_papers
    if arguments.paper not in (None, *known):
        raise UserError(f"claims {arguments.paper}: no such paper; use one of {', '.join(known)}")
    if arguments.scale:
        check_scale(arguments.scale, list(work.config.scales), f"--scale {arguments.scale}")
    papers = [arguments.paper] if arguments.paper else known
    found, missing = verdicts.of_all(work, papers, arguments.scale)
    if arguments.write:
        if arguments.paper or arguments.scale:
            raise UserError("claims --write: writes all documents; leave out PAPER and --scale")
        for path, text in documents.documents(work, found).items():
            write_atomic(path, text)
            print(f"wrote {path}")
    elif arguments.json:
        print_json([vars(judged) for rows in found.values() for judged in rows])
    else:
        print(*documents.told(found), sep="\n")
    _note(missing)
    return 0


def page(arguments: argparse.Namespace) -> int:
    """One HTML file: verdicts, figures, what made them, deviations, Snakemake's report."""
    from diffmbrl.pipeline.page import write

    missing = write(arguments.file)
    size = arguments.file.stat().st_size
    if arguments.json:
        print_json({"file": str(arguments.file), "bytes": size, "missing": missing})
    else:
        print(f"wrote {arguments.file}, {size / 1e6:.1f} MB")
    _note(missing)
    return 0


def _note(missing: list[str]) -> None:
    for line in missing:
        print(f"note: {line}", file=sys.stderr)


def register(commands: Any) -> None:
    """Adds these commands to the subparsers of `diffmbrl`."""
    parser = command(commands, claims)
    parser.add_argument("paper", nargs="?", help="one paper's claims only")
    parser.add_argument(
        "--scale", help="verdicts at this scale; by default of each claim the widest that tests it"
    )
    parser.add_argument(
        "--write", action="store_true", help="put them into README and the papers' documents"
    )
    parser = command(commands, page)
    parser.add_argument("file", nargs="?", type=Path, default=Path(PAGE), help=f"default {PAGE}")
