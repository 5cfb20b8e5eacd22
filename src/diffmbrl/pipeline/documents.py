"""The verdicts as text: in a terminal, and in the documents, between two marks.

`<!-- claims -->` and `<!-- /claims -->`, each on a line of its own, hold the table of a paper in
docs/<paper>.md. In README they hold the counts, and the claims whose ids the first mark names, as
in `<!-- claims I19 O11 -->`.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline.rule import fill
from diffmbrl.pipeline.verdicts import Judged, counts, summed
from diffmbrl.pipeline.workflow import Workflow
from diffmbrl.stats.kinds import KINDS

WIDTH = 80
MANY = 3  # places of a claim that are told one by one
_MARKS = re.compile(r"^(<!-- claims((?: \w+)*) -->\n).*?^(<!-- /claims -->)$", re.S | re.M)
_SPECIAL = re.compile(r"([\\|*<`]|(?<!\w)_|\](?=\())")
_LOCAL_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")

Found = Mapping[str, Sequence[Judged]]  # by paper


def told(found: Found) -> list[str]:
    """Every verdict, and the counts, as lines of a terminal."""
    lines = []
    for paper, judged in found.items():
        lines += [paper, ""]
        for j in judged:
            at = f" · {number_of(j.figure)}" if j.figure else ""
            lines.append(f"{j.id:<5}{j.verdict}{_at(j)} · {j.place}{at}")
            parts = [f"{part.verdict}, {part.name}: {part.reason}" for part in j.parts]
            for text in (j.statement, *(parts or [j.reason])):
                lines += textwrap.wrap(
                    text, WIDTH, initial_indent=" " * 5, subsequent_indent=" " * 5
                )
            lines.append("")
    return [*lines, *_totals(found)]


def _totals(found: Found) -> list[str]:
    rows = [("", *KINDS, "all")] + [tuple(map(str, row)) for row in table(found)]
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([name.ljust(first), *(n.rjust(w) for n, w in zip(numbers, rest, strict=True))])
        for name, *numbers in rows
    ]


def table(found: Found) -> list[tuple[str | int, ...]]:
    """For each paper its name and how many claims have each verdict, and are; then all papers'."""
    rows: list[tuple[str | int, ...]] = [
        (paper, *counts(judged).values(), len(judged)) for paper, judged in found.items()
    ]
    every = [j for judged in found.values() for j in judged]
    return [*rows, ("all", *counts(every).values(), len(every))] if len(rows) > 1 else rows


def documents(work: Workflow, found: Found) -> dict[Path, str]:
    """By file, README's and the papers' documents as they are when they follow the verdicts.

    Raises:
        UserError: a document is not there, lacks the marks, or names a claim that is none.
    """
    made = {LAYOUT.readme: _spliced(LAYOUT.readme, lambda ids: _summary(found, ids))}
    for paper, judged in found.items():
        path = document_of(paper)
        made[path] = _spliced(path, lambda ids, j=judged: _paper(work, j))
    return made


def document_of(paper: str) -> Path:
    """The document on a paper."""
    return LAYOUT.docs / f"{paper}.md"


def number_of(figure: str) -> str:
    """A figure's name for a reader: `figure A1` for rule `fig_implicit_a1`."""
    return "figure " + figure.split("_", 2)[-1].upper()


def _spliced(path: Path, block) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not there; the verdicts are to be written into it") from None
    pairs = list(_MARKS.finditer(text))
    if len(pairs) != 1:
        raise UserError(
            f"{path}: {len(pairs)} pairs of lines `<!-- claims -->` and `<!-- /claims -->`; the "
            "verdicts go between one"
        )
    found = pairs[0]
    lines = "\n".join(block(found[2].split()))
    return f"{text[: found.start()]}{found[1]}\n{lines}\n\n{found[3]}{text[found.end() :]}"


def _summary(found: Found, ids: Iterable[str]) -> list[str]:
    head = ["| paper | " + " | ".join([*KINDS, "claims"]) + " |", "| --- " * 6 + "|"]
    rows = [
        "| " + " | ".join([_linked(str(paper), found), *map(str, numbers)]) + " |"
        for paper, *numbers in table(found)
    ]
    by_id = {j.id: j for judged in found.values() for j in judged}
    lines = [*head, *rows]
    for index, key in enumerate(ids):
        if key not in by_id:
            raise UserError(f"{LAYOUT.readme}: <!-- claims ... {key} -->: there is no such claim")
        j = by_id[key]
        lines += [""] * (index == 0)
        lines.append(
            f"- **{j.verdict}**{_at(j)}: {sentence(_plain(j.statement))} "
            f"`{j.paper}`, {j.id}: {_found(j, many=1)}."
        )
    return lines


def _linked(paper: str, found: Found) -> str:
    return f"[`{paper}`]({document_of(paper)})" if paper in found else paper


def _paper(work: Workflow, judged: Sequence[Judged]) -> list[str]:
    return [
        f"{len(judged)} claims: {summed(judged)}. [What a verdict means](claims.md).",
        "",
        "| | claim | verdict | found |",
        "| --- | --- | --- | --- |",
        *(
            f"| {j.id} | *{_plain(j.place)}*: {sentence(_plain(j.statement))} | **{j.verdict}**"
            f"{_at(j)} | {_found(j)}{_drawn(work, j)} |"
            for j in judged
        ),
    ]


def _found(judged: Judged, many: int = MANY) -> str:
    """What was found: of many places how many have which verdict, and the one that decides."""
    parts, decides = judged.parts, judged.decides
    if decides is None or len(parts) <= many:
        return _plain(judged.reason)
    return _plain(f"{summed(parts)}; {decides.name}: {decides.reason}")


def _drawn(work: Workflow, judged: Judged) -> str:
    """A link to a claim's figure, the first where its rule makes several."""
    picture = next(iter(pictures_of(work, judged.figure, judged.scale)), None)
    return f" ([{number_of(judged.figure)}](../{picture}))" if picture else ""


def pictures_of(work: Workflow, figure: str, scale: str) -> dict[str, str]:
    """The paths of the pictures that a figure's rule makes at a scale, and of what each is."""
    return {
        fill(bound.outputs["png"], {**instance, "scale": scale}): ", ".join(instance.values())
        for bound in work.rules
        if bound.rule.name == figure and "png" in bound.outputs
        for instance in bound.rule.instances(work.config.settings(bound.paper, scale))
    }


def _at(judged: Judged) -> str:
    """The scale of a verdict; a claim that no data were held against has none."""
    return "" if judged.verdict == "not tested" else f" ({judged.same_scales})"


def sentence(text: str) -> str:
    """Text that ends as a sentence does."""
    return text if text.endswith((".", "?", "!")) else text + "."


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", text)


def opening(path: Path) -> tuple[str, str]:
    """A document's title and its first paragraph, as HTML."""
    head, _, rest = _text(path).partition("\n\n")
    return _html(head.removeprefix("# "), inline=True), _html(rest.partition("\n\n")[0])


def html(path: Path, section: str | None = None) -> str:
    """A document as HTML, without its title: all of it, or a section of the second level."""
    text = _text(path).partition("\n\n")[2]
    if section is None:
        return _html(text)
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    return _html(found[1]) if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not there") from None


def _html(text: str, inline: bool = False) -> str:
    """Markdown as HTML; links to other files of the project become their text."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    text = _LOCAL_LINK.sub(r"\1", text)
    return parser.renderInline(text) if inline else parser.render(text)
