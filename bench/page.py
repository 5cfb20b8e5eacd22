"""The page: how long it takes to make, how large it is, and how soon a headless Chromium shows it.

python bench/page.py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import diffmbrl.pinned  # noqa: F401  (before NumPy)
from diffmbrl.pipeline import page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import browser  # noqa: E402  (a module of the tests)

LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    """Prints seconds and megabytes."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "report.html"
        start = time.perf_counter()
        page.write(file)
        print(f"made in {time.perf_counter() - start:.1f} s, {file.stat().st_size / 1e6:.1f} MB")
        with browser(Path(folder) / "browser") as tab:
            for width in (1400, 400):
                for _ in range(3):
                    tab.open(file.as_uri(), width)
                    print(f"{width} pixels wide: loaded after {tab.do(LOADED) / 1000:.2f} s")


if __name__ == "__main__":
    main()
