"""The rule of a figure: figure N of a paper is module plots/fig_<paper>_N.py and two files."""

from typing import Any

from diffmbrl.pipeline.rule import Rule


def figure(paper: str, number: str, shows: str, **kwargs: Any) -> Rule:
    """A figure's rule, `fig_<paper>_<number>`, which makes figures/fig_<number>_<shows>.pdf, .png.

    Args:
        paper: its key.
        number: as in the paper, such as `2` or `A1`.
        shows: the rest of the file's name, in words joined by underscores.
        **kwargs: inputs, settings, over, facts: as of `Rule`.
    """
    name = f"fig_{paper}_{number.lower()}"
    files = {kind: f"figures/fig_{number}_{shows}.{kind}" for kind in ("pdf", "png")}
    return Rule(f"plots.{name}", outputs=files, shown=("png",), name=name, **kwargs)
