"""How a project is laid out: its folders and files, and what a stage needs set up.

The machinery in `diffmbrl.pipeline` takes all it knows of the project from here.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Where things are; paths are relative to the project's folder, from which commands run.

    Attributes:
        package: the Python package.
        root: its folder.
        machinery: modules that carry bytes and make none, so that their edits rerun nothing.
        always: modules whose code counts for every stage.
        numeric: third-party packages whose import means that a stage computes on a device.
        facts: module-level constants of registry entries that rules hand to stages as settings,
            so that they do not count as code (`diffmbrl.registry`).
        setup: the module whose `configure(device)` prepares such a stage.
        lock: the locked requirements.
        config: folder of the configuration.
        datasets, results, stats, figures: what stages make, by kind.
        intermediate: what only other stages read, large and made again by training: it stays on the
            machine that made it, and may be missing where what is made from it is there.
        manifests: folder of the manifests.
        state: local to a checkout; deleting it costs time, never a result.
        docs, readme: the documents, one of docs/ for each paper.
        snakefile: of the workflow.
        profile: Snakemake's settings for every call in this folder.
    """

    package: str
    root: Path
    machinery: tuple[str, ...]
    always: tuple[str, ...]
    numeric: frozenset[str]
    facts: frozenset[str]
    setup: str
    lock: Path = Path("requirements.txt")
    config: Path = Path("config")
    datasets: Path = Path("data/datasets")
    results: Path = Path("data/results")
    stats: Path = Path("data/stats")
    figures: Path = Path("figures")
    intermediate: Path = Path("data/intermediate")
    manifests: Path = Path("data/manifests")
    state: Path = Path(".diffmbrl")
    docs: Path = Path("docs")
    readme: Path = Path("README.md")
    snakefile: Path = Path("workflow/Snakefile")
    profile: Path = Path("workflow/profiles/default/config.yaml")

    @property
    def made(self) -> dict[str, Path]:
        """The folders that stages fill, by kind."""
        return {
            "datasets": self.datasets, "results": self.results, "stats": self.stats,
            "figures": self.figures, "intermediate": self.intermediate,
        }  # fmt: skip

    @property
    def versioned(self) -> tuple[Path, Path]:
        """The folders whose files DVC keeps."""
        return self.datasets, self.results

    @property
    def released(self) -> tuple[Path, ...]:
        """The folders whose files others get: from DVC, or from git."""
        return *self.versioned, self.stats, self.figures

    def is_intermediate(self, output: str) -> bool:
        """Whether an output stays on the machine that made it."""
        return Path(output).is_relative_to(self.intermediate)

    @property
    def watched(self) -> tuple[Path, ...]:
        """Folders of which a job may open its inputs and outputs only."""
        return self.config, *self.made.values()


_PACKAGE = __name__.partition(".")[0]
_ORIGIN = importlib.util.find_spec(_PACKAGE).origin  # type: ignore[union-attr]

LAYOUT = Layout(
    package=_PACKAGE,
    root=Path(_ORIGIN or "").parent,
    machinery=("pipeline", "layout", "pinned"),
    always=("numerics",),
    numeric=frozenset({"jax", "equinox", "optax"}),
    facts=frozenset(
        {
            "LABEL",
            "ORDER",
            "COLOR",
            "LIMITS",
            "SMOKE",
            "SHORT",
            "GAMMA",
            "FLOOR",
            "BACKUPS",
            "SOLVED",
            "MODEL_FREE",
        }
    ),
    setup="sweep.device",
)
