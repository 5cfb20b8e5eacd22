"""The page: one file with every verdict, what it rests on, the deviations and Snakemake's report.

It needs no network and no other file. Pictures are the PNGs of the figures, pixel for pixel, as
lossless WebP, which takes half the space; Snakemake's report, which shows them too, takes them
from the page.
"""

import base64
import gzip
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffmbrl.config import load
from diffmbrl.errors import DataError, UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import captions, documents, explain, report, verdicts
from diffmbrl.pipeline.files import canonical, hashing, write_atomic
from diffmbrl.pipeline.verdicts import Judged
from diffmbrl.pipeline.workflow import Workflow
from diffmbrl.stats.kinds import KINDS

_PNG = re.compile(r'data:image/png;[^"\\]*?base64,([A-Za-z0-9+/=]+)')


@dataclass(frozen=True)
class Figure:
    """A picture on the page.

    Attributes:
        id: of its element.
        rule, scale, path: what makes it, at which scale, where it lies.
        part: of what it is where the rule draws several, such as `chain, explicit`.
        number: such as `figure 2`.
        title: the first line of its stage.
        chain: what made it, folded; None where the picture is not there.
        uri: its data, as a WebP.
        png: the base64 text of the PNG's bytes.
        width, height: in pixels.
    """

    id: str
    rule: str
    scale: str
    path: str
    part: str
    number: str
    title: str
    chain: Mapping[str, Any] | None = None
    uri: str = ""
    png: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Paper:
    """What the page says of a paper.

    Attributes:
        name: its key.
        title, opening, deviations: HTML, from its document.
        claims: its claims.
        counts: how many have each verdict.
        figures: its pictures.
        tables: by scale, the chain of the table of verdicts.
    """

    name: str
    title: str
    opening: str
    deviations: str
    claims: Sequence[Judged]
    counts: Mapping[str, int]
    figures: Sequence[Figure]
    tables: Mapping[str, Mapping[str, Any]]

    def shown(self, judged: Judged) -> list[Figure]:
        """The pictures that show a claim, at the scale that decided it."""
        return [f for f in self.figures if (f.rule, f.scale) == (judged.figure, judged.scale)]


def write(target: Path) -> list[str]:
    """Writes the page; a line for each thing that it lacks: a paper's verdicts, Snakemake's report.

    Raises:
        UserError: there are no verdicts at all, or the file cannot be written.
    """
    work = Workflow(load())
    found, missing = verdicts.of_all(work, work.config.known_papers)
    with hashing() as hashes:
        papers = [_paper(work, name, judged, hashes) for name, judged in found.items()]
    figures = [figure for paper in papers for figure in paper.figures]
    snakemakes, refused = _snakemake_report()
    text = _template().render(
        project=LAYOUT.package,
        papers=papers,
        kinds=KINDS,
        many=documents.MANY,
        totals=documents.table(found),
        meaning=documents.html(LAYOUT.docs / "claims.md"),
        snakemake=_packed(snakemakes, figures),
        refused=refused,
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        state=report.git_state(),
    )
    try:
        write_atomic(target, text)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}") from None
    return missing + [refused] * bool(refused)


def _template() -> Any:
    import jinja2

    folder = LAYOUT.snakefile.parent / "report"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    environment.filters["setting"] = _setting
    environment.filters["sentence"] = documents.sentence
    environment.filters["summed"] = verdicts.summed
    return environment.get_template("page.html.jinja")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-")


def _setting(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _paper(
    work: Workflow, name: str, judged: Sequence[Judged], hashes: Callable[[Path], str]
) -> Paper:
    document = documents.document_of(name)
    return Paper(
        name,
        *documents.opening(document),
        documents.html(document, "Deviations"),
        judged,
        verdicts.counts(judged),
        [_filled(figure, hashes) for figure in _figures(work, name, judged)],
        {j.scale: _chain(str(verdicts.table_of(work, name, j.scale)), hashes) for j in judged},
    )


def _figures(work: Workflow, name: str, judged: Sequence[Judged]) -> list[Figure]:
    """All pictures of a paper at the configured scale, and those that claims cite; no data yet."""
    config = work.config
    scales = config.scales_of(name)
    home = config.home_of(name, config.scale) if config.scale in scales else None
    cited = {(j.figure, j.scale) for j in judged}
    return [
        Figure(
            re.sub(r"\W+", "-", path.removesuffix(".png")), bound.rule.name, scale, path, part,
            documents.number_of(bound.rule.name), captions.title(bound.rule.stage),
        )
        for bound in work.rules
        if bound.paper == name and bound.outputs.get("png", "").startswith(f"{LAYOUT.figures}/")
        for scale in scales
        if scale == home or (bound.rule.name, scale) in cited
        for path, part in documents.pictures_of(work, bound.rule.name, scale).items()
    ]  # fmt: skip


def _filled(figure: Figure, hashes: Callable[[Path], str]) -> Figure:
    """A picture with its data and its chain, where it is there."""
    path = Path(figure.path)
    if not path.is_file():
        return figure
    data = path.read_bytes()
    uri, (width, height) = _webp(data, figure.path)
    png, chain = base64.b64encode(data).decode(), _chain(figure.path, hashes)
    return replace(figure, chain=chain, uri=uri, png=png, width=width, height=height)


def _webp(data: bytes, path: str) -> tuple[str, tuple[int, int]]:
    """A picture's data URI and its size."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except UnidentifiedImageError:
        raise DataError(f"{path}: is no picture; delete it and run again") from None
    packed = io.BytesIO()
    image.save(packed, "WEBP", lossless=True, quality=20, method=4)
    text = base64.b64encode(packed.getvalue()).decode()
    return f"data:image/webp;base64,{text}", image.size


def _chain(path: str, hashes: Callable[[Path], str]) -> dict[str, Any]:
    """What `diffmbrl why` says of a file, folded; only the path and why where it says nothing."""
    try:
        return _folded(explain.why(path, hashes))
    except UserError as error:
        return {"output": path, "error": str(error).removeprefix(f"{path}: ")}


def _folded(chain: Mapping[str, Any]) -> dict[str, Any]:
    """A chain in which of several inputs from one stage the first is told whole."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for source in chain["inputs"]:
        stages.setdefault(source["stage"], []).append(source)
    how = chain["report"]
    commit = (how["commit"] or "none")[:10] + (" with edits" if how["dirty"] else "")
    whole = [{**_folded(first), "like_it": others} for first, *others in stages.values()]
    return {**chain, "commit": commit, "inputs": whole, "like_it": []}


def _snakemake_report() -> tuple[str, str]:
    """The text of the report that Snakemake makes; or nothing, and why it makes none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        command = [sys.executable, "-m", "snakemake", "--report", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and path.is_file():
            return path.read_text(encoding="utf-8"), ""
    said = (done.stderr.strip() or done.stdout.strip() or "nothing was said").splitlines()[-1]
    return "", f"snakemake --report: {said.rstrip('.')}; `snakemake -n` says what is to be run"


def _packed(text: str, figures: Sequence[Figure]) -> str:
    """A report whose pictures are those of the page, named by their elements, and compressed."""
    known = {figure.png: figure.id for figure in figures if figure.png}

    def marked(match: re.Match) -> str:
        return f"@@{known[match[1]]}@@" if match[1] in known else match[0]

    packed = gzip.compress(_PNG.sub(marked, text).encode(), mtime=0)
    return base64.b64encode(packed).decode()
