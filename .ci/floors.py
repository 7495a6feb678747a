"""Print the lowest versions that the package accepts, as constraints for pip."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"

for requirement in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]:
    if match := re.match(r"([\w.-]+)(?:\[.*?\])?>=([\d.]+)", requirement):
        print(f"{match[1]}=={match[2]}")
