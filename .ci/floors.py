"""Print the lowest versions that the installed package accepts, as constraints for pip."""

import re
from importlib.metadata import requires

for requirement in requires("mnist-zarr") or []:
    match = re.match(r"([\w.-]+)(?:\[.*?\])?>=([\d.]+)", requirement)
    if match and "extra ==" not in requirement:
        print(f"{match[1]}=={match[2]}")
