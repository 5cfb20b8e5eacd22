"""Used by every stage."""

import json


def write(path, value):
    """Writes JSON."""
    path.write_text(json.dumps(value, sort_keys=True) + "\n", encoding="utf-8")


def read(path):
    """Reads JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
