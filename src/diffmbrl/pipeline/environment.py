"""Whether the installed packages are those of the lock."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)\s*(?:;([^\\]*))?\\?")


def check(setting: str) -> list[str]:
    """Compares what is installed with the lock.

    Args:
        setting: `locked` refuses a difference, `any` allows it.

    Returns:
        The packages that differ, such as `numpy 2.5.0`, for the platform of what is made.

    Raises:
        UserError: a package that is not the lock's, where that is refused; or the lock cannot
            be read.
    """
    differing = list(differences(LAYOUT.lock))
    if differing and setting == "locked":
        name, installed, locked = differing[0]
        others = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise UserError(
            f"environment: {name} {installed} is installed, {LAYOUT.lock} has {locked}{others}; "
            f"mend it with `{sys.executable} -m pip install --require-hashes -r {LAYOUT.lock}`, or "
            "set `environment: any` in config/config.yaml (results then say so)"
        )
    return [f"{name} {installed}" for name, installed, _ in differing]


def differences(lock: Path) -> Iterator[tuple[str, str, str]]:
    """Installed packages with another version than the lock's: name, installed, locked.

    Packages that the lock does not name are left alone (a GPU's plugin), and so are locked ones
    that are not installed: what needs them fails by itself.
    """
    wanted = pins(lock)
    seen: set[str] = set()
    for folder in sys.path:  # the first that is found is the one that is imported
        for path in sorted(Path(folder).glob("*.dist-info")):
            # Names of folders, because reading every package's metadata takes a second.
            name, _, version = path.stem.partition("-")
            name = _normal(name)
            if name in wanted and name not in seen and version != wanted[name]:
                yield name, version, wanted[name]
            seen.add(name)


def pins(lock: Path) -> dict[str, str]:
    """The version of each locked package that applies to this machine.

    Raises:
        UserError: a line that is no pin, named.
    """
    from packaging.markers import InvalidMarker, Marker

    found = {}
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(("#", "--hash=")):
            continue
        pin = _PIN.fullmatch(text)
        try:
            applies = pin is not None and (not pin[3] or Marker(pin[3].strip()).evaluate())
        except InvalidMarker:
            pin = None
        if pin is None:
            raise UserError(
                f"{lock}:{number}: does not parse: {text[:60]!r}; expected name==version and hashes"
            )
        if applies:
            found[_normal(pin[1])] = pin[2]
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    try:
        check("locked")
    except UserError as error:
        sys.exit(f"error: {error}")
