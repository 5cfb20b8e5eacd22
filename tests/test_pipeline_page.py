"""The page, looked at in a headless browser: what it says, search, filters, keyboard, widths."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from browser import browser, until
from diffmbrl import config
from diffmbrl.errors import UserError
from diffmbrl.pipeline import page
from diffmbrl.pipeline.workflow import Workflow
from diffmbrl.stats.kinds import ABSENT

ROOT = Path(__file__).parents[1]
LARGEST = 15_000_000
KINDS = ("agrees", "disagrees", "inconclusive", "not tested")


def rows() -> list[dict[str, str]]:
    """The claims as the tables hold them: of each the row of the widest scale that tests it.

    Of one that none tests the row of the narrowest that has runs of it.
    """
    found: dict[str, dict[str, str]] = {}
    for scale in reversed(config.load(ROOT).judged):
        for path in sorted(ROOT.glob(f"data/stats/{scale}/*/claims.csv")):
            for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
                before = found.get(row["id"], {"reason": ABSENT})
                if before["reason"] == ABSENT or row["verdict"] != "not tested":
                    found[row["id"]] = {**row, "paper": path.parent.name}
    return list(found.values())


def figures() -> list[Path]:
    """The pictures of the papers that have verdicts, at scale laptop."""
    papers = {row["paper"] for row in rows()}
    found = [path for paper in papers for path in ROOT.glob(f"figures/laptop/{paper}/*.png")]
    assert len(found) > 5 * len(papers)
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of the project as it is."""
    target = tmp_path_factory.mktemp("page") / "report.html"
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        assert page.write(target) == []
    finally:
        os.chdir(here)
    return target


@pytest.fixture(scope="module")
def tab(file, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def wide(tab, file):
    """The page, fresh, 1,400 pixels wide; nothing may go wrong or leave the file."""
    tab.requests.clear()
    tab.open(file.as_uri(), 1400)
    yield tab
    assert tab.errors == []
    assert tab.requests == [file.as_uri()]


def shown(tab) -> list[str]:
    return tab.do("find('.claim').filter(c => c.checkVisibility()).map(c => c.id)")


def test_one_file_of_bounded_size(file):
    assert file.stat().st_size < LARGEST
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_counts_and_verdicts_are_those_of_the_tables(wide):
    claims = rows()
    assert len(claims) == len({row["id"] for row in claims}) > 0
    said = wide.do(
        "find('.claim').map(c => [c.id, c.dataset.verdict, c.querySelector('.badge').textContent])"
    )
    assert sorted(map(tuple, said)) == sorted((r["id"], r["verdict"], r["verdict"]) for r in claims)
    table = wide.do("find('.totals tbody tr').map(r => [...r.cells].map(c => c.textContent))")
    for paper in {row["paper"] for row in claims}:
        kinds = [row["verdict"] for row in claims if row["paper"] == paper]
        expected = [paper, *(str(kinds.count(kind)) for kind in KINDS), str(len(kinds))]
        assert expected in table
    assert (
        wide.do("document.querySelector('.tools output').value")
        == f"{len(claims)} of {len(claims)}"
    )


def test_every_claim_has_its_words_its_numbers_and_its_scale(wide):
    texts = dict(wide.do("find('.claim').map(c => [c.id, c.textContent.replace(/\\s+/g, ' ')])"))
    scales = config.load(ROOT).judged
    for row in rows():
        text = texts[row["id"]]
        pieces = re.split(r"[;:()]", row["reason"])
        for part in (row["statement"], row["place"], row["interval"], row["test"], *pieces):
            assert " ".join(part.split()) in text
        if row["estimate"] and row["estimate"] != "inf":
            assert f"{float(row['estimate']):.3g}".replace("e+0", "e").replace("e-0", "e-") in text
        if row["n"] != "0":
            assert f"n = {row['n']}" in text
        if row["verdict"] != "not tested":
            assert any(f"scale {scale}" in text for scale in scales)


def test_every_figure_is_there(wide):
    sizes = dict(
        wide.do(
            "Promise.all(find('#figures .figure img').map(i => (i.loading = 'eager', i.decode()"
            ".then(() => [i.closest('.figure').id, [i.naturalWidth, i.naturalHeight]]))))"
        )
    )
    for path in figures():
        name = "-".join(path.relative_to(ROOT).with_suffix("").parts)
        with Image.open(path) as image:
            assert sizes[name] == list(image.size), name


def test_search_and_filters(wide):
    claims = rows()
    wide.do("tools.elements.text.focus()")
    for letter in claims[0]["id"].lower():
        wide.press(letter)
    asked = claims[0]["id"].lower()
    assert claims[0]["id"] in shown(wide)
    assert len(shown(wide)) < len(claims)
    texts = wide.do("find('.claim').map(c => [c.id, c.textContent.toLowerCase()])")
    assert shown(wide) == [name for name, text in texts if asked in text]
    wide.press("Escape")
    assert len(shown(wide)) == len(claims)
    for kind in KINDS:
        expected = sum(row["verdict"] != kind for row in claims)
        wide.do(f"document.querySelector('[value=\"{kind}\"]').click()")
        assert len(shown(wide)) == expected
        assert wide.do("tools.elements.shown.value") == f"{expected} of {len(claims)}"
        wide.do(f"document.querySelector('[value=\"{kind}\"]').click()")
    paper = claims[-1]["paper"]
    mine = [row for row in claims if row["paper"] == paper]
    wide.do(f"document.querySelector('.totals [aria-label*=\"{paper}, all\"]').click()")
    assert set(shown(wide)) == {row["id"] for row in mine}
    wide.do("tools.elements.text.value = 'no claim says this'; show()")
    assert shown(wide) == []
    assert wide.do("find('.none').filter(e => e.checkVisibility()).length") == 1


def test_evidence_by_keyboard(wide):
    shows = "find('.evidence').find(e => e.querySelector('[data-figure]'))"
    wide.do("document.body.focus()")
    wide.press("/")
    assert wide.do("document.activeElement.name") == "text"
    wide.do(f"window.looked = {shows}; looked.querySelector('summary').focus()")
    wide.press("Enter")
    until(lambda: wide.do("looked.open && Boolean(looked.querySelector('.figure img'))"))
    assert wide.do("looked.querySelector('.figure img').decode().then(() => true)")
    chain = wide.do("looked.querySelector('.chain[open]').textContent")
    for part in ("commit", "sha256", "as recorded", "figures/", "data/results/"):
        assert part in chain
    path = wide.do("looked.querySelector('.made code').textContent")
    assert (ROOT / path).is_file()
    assert wide.do("looked.querySelectorAll('[id]').length") == 0
    for _ in range(3):
        wide.press("Tab")
    assert wide.do("looked.contains(document.activeElement)")


def test_a_claim_without_a_figure_shows_what_its_table_was_made_by(wide):
    wide.do("window.looked = find('.evidence').find(e => !e.querySelector('[data-figure]'))")
    wide.do("looked.querySelector('summary').click()")
    until(lambda: wide.do("Boolean(looked.querySelector('.chain[open]'))"))
    assert "claims.csv" in wide.do("looked.querySelector('.made').textContent")


def test_deviations_are_those_of_the_documents(wide):
    said = wide.do("document.querySelector('#deviations').textContent")
    for paper in {row["paper"] for row in rows()}:
        text = (ROOT / f"docs/{paper}.md").read_text()
        section = text.partition("## Deviations\n")[2].partition("\n## ")[0]
        count = sum(line[:1].isdigit() for line in section.splitlines())
        assert count > 3
        title = wide.do(f"document.querySelector('#{paper} h2').textContent")
        heading = "find('.deviations').find(d => d.querySelector('h3').textContent === "
        assert wide.do(f"{heading}{title!r}).querySelectorAll('li').length") == count
    assert "](" not in said


def test_snakemakes_report_opens_inside(wide):
    wide.do("document.querySelector('#open-report').click()")
    with wide.frame() as report:
        until(lambda: report.do("document.querySelectorAll('#app svg').length > 1"))
        assert "Workflow" in report.do("document.querySelector('#app').textContent")
        text = report.do("document.documentElement.innerHTML")
        assert text.count("data:image/webp") == len(figures())
        assert "@@figures" not in text
        report.do("find = text => [...document.querySelectorAll('a')].find(a => a.text === text)")
        report.do("find('Statistics').click()")
        until(lambda: report.do("document.body.textContent.includes('Runtimes')"))
        assert report.errors == []
        assert report.requests == []


@pytest.mark.parametrize("width", [400, 1400])
def test_it_reads_well(tab, file, width):
    tab.open(file.as_uri(), width)
    assert tab.do("document.documentElement.scrollWidth <= innerWidth")
    tab.do("find('.evidence').slice(0, 5).forEach(e => e.open = true)")
    until(lambda: tab.do("find('.evidence .figure').length >= 5"))
    assert tab.do("document.documentElement.scrollWidth <= innerWidth")
    smallest = (
        "Math.min(...find('main *').filter(e => e.checkVisibility() && [...e.childNodes].some("
        "n => n.nodeType === 3 && n.data.trim()))"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert tab.do(smallest) >= 10
    tall = "getComputedStyle(document.querySelector('.claim tr')).display"
    assert tab.do(tall) == ("table-row" if width == 1400 else "block")
    assert tab.do("find('#figures img').every(i => i.getBoundingClientRect().width >= 340)")


def test_without_any_verdict_there_is_no_page(tmp_path, monkeypatch):
    made = Workflow(config.load(ROOT))
    for paper in config.papers():
        made.by_stage.pop(f"{paper}.claims", None)
    monkeypatch.setattr(page, "Workflow", lambda loaded: made)
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="no rule of stage"):
        page.write(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_page_without_snakemakes_report_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(page.sys, "executable", shutil.which("false"))
    monkeypatch.setattr(page, "_webp", lambda data, path: ("data:,", (1, 1)))
    missing = page.write(tmp_path / "report.html")
    assert missing[-1].startswith("snakemake --report: nothing was said; `snakemake -n`")
    text = (tmp_path / "report.html").read_text()
    assert "snakemake --report: nothing was said" in text
    assert 'id="open-report"' not in text


def test_a_browser_that_is_not_there_is_a_reason():
    code = (
        "import sys, pathlib\nsys.path.insert(0, 'tests')\nimport browser\n"
        "try:\n    with browser.browser(pathlib.Path('x')): pass\n"
        "except BaseException as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PATH": "/nowhere"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Skipped no browser to look with: none of chromium" in done.stdout
