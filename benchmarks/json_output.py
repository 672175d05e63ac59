"""Output of the scripts in this folder."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path | None, document: Any) -> None:
    """Write `document` to `path`, making its folder; do nothing if no path was given."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
