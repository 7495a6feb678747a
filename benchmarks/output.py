"""Where figures are written: nowhere, unless a folder is given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_output_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="also write the figures into this folder"
    )


def write_json(figures: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
