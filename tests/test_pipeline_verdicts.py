"""Verdicts: the widest scale counts; as text, JSON and Markdown; each mistake is one line."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from diffmbrl import cli, config
from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline import documents, verdicts
from diffmbrl.pipeline.rule import Rule
from diffmbrl.pipeline.stage import Job
from diffmbrl.pipeline.workflow import Bound, Workflow
from diffmbrl.stats import claims
from diffmbrl.stats.kinds import ABSENT, KINDS

ROOT = Path(__file__).parents[1]
OMD = Path("data/stats/{}/omd/claims.csv")


def untested(why):
    return lambda: claims.Verdict("not tested", why)


ROWS = (
    claims.Claim("X1", "figure 1", "a|b <i> and *c*", lambda: claims.above([3, 3.1, 2.9], 0, 1),
                 figure="fig_omd_2"),
    claims.Claim("X2", "theorem 1", "x is small.", lambda: claims.holds(1.0, 0.1, 9, "x")),
    claims.Claim("X3", "section 2", "y", lambda: claims.above([-1.0, 2.0, 0.3], 0, 1)),
    claims.Claim("X4", "section 3", "z", untested("needs a robot")),
)  # fmt: skip


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The real papers, of which `omd` has an example of verdicts at scale laptop."""
    made = Workflow(config.load(ROOT))
    for paper in config.papers():
        made.by_stage.pop(f"{paper}.claims", None)
    rule = Rule("omd.claims", outputs={"claims": "stats/claims.csv"})
    made.by_stage["omd.claims"] = Bound(made, "omd", rule)
    monkeypatch.chdir(tmp_path)
    judge(ROWS, "laptop")
    return made


def judge(rows, scale):
    path = Path(str(OMD).format(scale))
    path.parent.mkdir(parents=True, exist_ok=True)
    claims.write(rows, Job({}, {}, {"claims": path}, 1, path.parent))


def test_verdicts_are_those_of_the_table(work):
    found = verdicts.of_paper(work, "omd")
    assert [j.verdict for j in found] == ["agrees", "disagrees", "inconclusive", "not tested"]
    first = found[0]
    assert (first.scale, first.n, first.test) == ("laptop", 3, "one-sample t")
    assert first.estimate == pytest.approx(3)
    assert first.low == pytest.approx(claims.t_interval([3, 3.1, 2.9])[1], rel=1e-8)
    assert found[1].low is None
    assert verdicts.counts(found) == dict.fromkeys(KINDS, 1)


def test_the_widest_scale_at_which_a_claim_is_tested_counts(work):
    judge([claims.Claim("X1", "figure 1", "a", untested("no runs")),
           claims.Claim("X3", "section 2", "y", lambda: claims.above([3, 3.1, 2.9], 0, 1))],
          "paper")  # fmt: skip
    judge(ROWS, "smoke")
    found = {j.id: j for j in verdicts.of_paper(work, "omd")}
    assert set(found) == {"X1", "X2", "X3", "X4"}
    assert (found["X1"].scale, found["X1"].verdict) == ("laptop", "agrees")
    assert (found["X3"].scale, found["X3"].verdict) == ("paper", "agrees")
    assert found["X3"].elsewhere == {"laptop": "inconclusive"}
    at_laptop = verdicts.of_paper(work, "omd", "laptop")
    assert [j.verdict for j in at_laptop][2] == "inconclusive"


def test_a_verdict_that_two_scales_share_goes_by_the_narrower_one(work):
    wider = claims.Claim("X3", "section 2", "y", lambda: claims.above([3, 3.1, 2.9], 0, 1))
    judge([*ROWS[:2], wider], "cartpole")
    judge(ROWS, "smoke")
    found = {j.id: j for j in verdicts.of_paper(work, "omd")}
    assert [found[key].scale for key in ("X1", "X2", "X3")] == ["laptop", "laptop", "cartpole"]
    assert (found["X1"].elsewhere, found["X3"].elsewhere) == ({}, {"laptop": "inconclusive"})


def test_of_a_claim_that_is_tested_nowhere_the_scale_that_has_runs_says_why(work):
    judge([claims.Claim("X5", "section 4", "w", untested("runs are too short"))], "mujoco")
    without = claims.Claim("X5", "section 4", "w", untested("never judged"), ("runs",))
    judge([*ROWS, without], "laptop")
    found = {j.id: j for j in verdicts.of_paper(work, "omd")}
    assert (found["X5"].scale, found["X5"].reason) == ("mujoco", "runs are too short")
    at_laptop = {j.id: j for j in verdicts.of_paper(work, "omd", "laptop")}
    assert at_laptop["X5"].reason == ABSENT


def test_a_paper_that_no_judged_scale_has_is_refused():
    work = Workflow(config.load(ROOT, {"judged": ["tuning"]}))
    with pytest.raises(UserError, match="omd: none of judged = tuning has it; scales that do: lap"):
        verdicts.of_paper(work, "omd")


def test_scales_of_equal_settings_are_named_together(work):
    implicit = Rule("implicit.claims", outputs={"claims": "stats/claims.csv"})
    work.by_stage["implicit.claims"] = Bound(work, "implicit", implicit)
    path = Path("data/stats/laptop/implicit/claims.csv")
    path.parent.mkdir(parents=True)
    path.write_bytes(Path(str(OMD).format("laptop")).read_bytes())
    assert verdicts.of_paper(work, "implicit")[0].same_scales == "laptop = paper"
    assert verdicts.of_paper(work, "omd")[0].same_scales == "laptop"


def test_what_is_missing_is_one_line_with_the_command(work):
    table = Path(str(OMD).format("laptop"))
    with pytest.raises(UserError, match="rpg: no rule of stage rpg.claims"):
        verdicts.of_paper(work, "rpg")
    found, missing = verdicts.of_all(work, ["omd", "rpg"])
    assert set(found) == {"omd"}
    assert len(missing) == 1
    table.unlink()
    with pytest.raises(UserError, match=f"{table}: not there; `snakemake --cores 2 {table}` makes"):
        verdicts.of_paper(work, "omd")


def test_a_table_that_is_none_is_refused(work):
    table = Path(str(OMD).format("laptop"))
    frame = pd.read_csv(table)
    frame.drop(columns="power").to_csv(table, index=False)
    with pytest.raises(DataError, match="claims.csv: column 'power' is missing"):
        verdicts.of_all(work, ["omd", "rpg"])
    frame.assign(verdict="true").to_csv(table, index=False)
    with pytest.raises(DataError, match="claim X1: verdict 'true' is none of"):
        verdicts.of_paper(work, "omd")
    frame.assign(n="few").to_csv(table, index=False)
    with pytest.raises(DataError, match="claim X1: .*few"):
        verdicts.of_paper(work, "omd")


def test_the_terminal_shows_every_verdict_in_80_columns_and_counts(work):
    lines = documents.told({"omd": verdicts.of_paper(work, "omd")})
    assert max(map(len, lines)) <= 80
    assert "X1   agrees (laptop) · figure 1 · figure 2" in lines
    assert "X4   not tested · section 3" in lines
    assert "     needs a robot" in lines
    assert lines[-2].split() == ["agrees", "disagrees", "inconclusive", "not", "tested", "all"]
    assert lines[-1].split() == ["omd", "1", "1", "1", "1", "4"]


def test_a_claim_over_several_places_is_told_place_by_place(work):
    few = {"a, h = 3": claims.above([3, 3.1, 2.9], 0, 1), "b (deep)": claims.above([1.0], 0, 1)}
    many = {
        **few,
        "c": claims.every({"x": claims.below([3, 3.1, 2.9], 0, 1)}),
        "d": few["a, h = 3"],
    }
    judge([claims.Claim("X1", "figure 1", "a", lambda: claims.every(few)),
           claims.Claim("X2", "figure 1", "a", lambda: claims.every(many))], "laptop")  # fmt: skip
    first, second = verdicts.of_paper(work, "omd")
    assert [(p.name, p.verdict) for p in first.parts] == [
        ("a, h = 3", "agrees"), ("b (deep)", "not tested"),
    ]  # fmt: skip
    assert first.parts[0].reason == few["a, h = 3"].reason
    assert first.verdict == "inconclusive"
    assert first.decides.name == "a, h = 3"
    judge([claims.Claim("X3", "figure 1", "a", lambda: claims.some(many))], "laptop")
    (third,) = verdicts.of_paper(work, "omd")
    assert (third.verdict, third.decides.name) == ("agrees", "a, h = 3")
    assert second.decides.name == "c"
    assert [p.verdict for p in second.parts] == ["agrees", "not tested", "disagrees", "agrees"]
    assert documents._found(first) == first.reason
    told = documents._found(second)
    assert told.startswith("2 agree, 1 disagrees, 1 not tested; c: x disagrees")
    lines = documents.told({"omd": [second]})
    assert lines[4].startswith("     agrees, a, h = 3: 3 [")


def test_documents_hold_the_verdicts_between_their_marks(work):
    documents.document_of("omd").parent.mkdir()
    documents.document_of("omd").write_text(
        "# omd\n\n<!-- claims -->\nold\n<!-- /claims -->\n\nafter\n"
    )
    Path("README.md").write_text("before\n<!-- claims X2 X1 -->\n<!-- /claims -->\n")
    found = {"omd": verdicts.of_paper(work, "omd")}
    made = documents.documents(work, found)
    text = made[Path("docs/omd.md")]
    assert text.startswith("# omd\n\n<!-- claims -->\n\n4 claims: 1 agrees, 1 disagrees,")
    assert text.endswith("\n\n<!-- /claims -->\n\nafter\n")
    assert "old" not in text
    assert r"| X1 | *figure 1*: a\|b \<i> and \*c\*. | **agrees** (laptop) | " in text
    assert "([figure 2](../figures/laptop/omd/fig_2_returns_under_bound.png))" in text
    assert "| X4 | *section 3*: z. | **not tested** | needs a robot |" in text
    readme = made[Path("README.md")]
    assert "| [`omd`](docs/omd.md) | 1 | 1 | 1 | 1 | 4 |" in readme
    assert readme.index("- **disagrees** (laptop): x is small.") < readme.index("- **agrees**")
    for path, written in made.items():
        path.write_text(written)
    assert documents.documents(work, found) == made
    Path("README.md").write_text("<!-- claims X9 -->\n<!-- /claims -->\n")
    with pytest.raises(UserError, match="X9 -->: there is no such claim"):
        documents.documents(work, found)
    documents.document_of("omd").write_text("# omd\n")
    with pytest.raises(UserError, match="docs/omd.md: 0 pairs of lines `<!-- claims -->`"):
        documents._spliced(Path("docs/omd.md"), lambda ids: [])


def test_the_commands(work, capsys, monkeypatch):
    monkeypatch.setattr("diffmbrl.pipeline.workflow.Workflow", lambda config: work)
    monkeypatch.setattr("diffmbrl.pipeline.verdict_commands.load", lambda: work.config)
    assert cli.main(["claims", "omd", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in said] == list(KINDS)
    assert said[1]["power"] is None
    assert math.isclose(said[0]["estimate"], 3)
    assert cli.main(["claims"]) == 0
    out, err = capsys.readouterr()
    assert "a|b <i> and *c*" in out
    assert (
        err.splitlines()[0]
        == "note: implicit: no rule of stage implicit.claims makes an output `claims`"
    )
    for arguments, message in (
        (["vin"], "claims vin: no such paper; use one of implicit, omd, rpg"),
        (["--scale", "huge"], "--scale huge: unknown; use one of laptop, paper, smoke"),
        (["rpg"], "rpg: no rule of stage rpg.claims"),
        (["omd", "--scale", "paper"], "data/stats/paper/omd/claims.csv: not there; `snakemake"),
        (["omd", "--write"], "leave out PAPER and --scale"),
        (["--write"], "README.md: not there"),
    ):
        assert cli.main(["claims", *arguments]) == 2
        assert message in capsys.readouterr().err
