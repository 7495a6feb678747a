"""The command line in this process, and whatever shows something on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

from click.testing import CliRunner, Result

from mnist_zarr.cli import main

ROWS, COLUMNS = 24, 120


def run_command(*args: str | Path) -> Result:
    """Run ``mnist-zarr`` with these arguments."""
    return CliRunner().invoke(main, [str(arg) for arg in args])


def shown_on_terminal(command: list[str]) -> str:
    """Run a program whose standard error is a terminal; return what it shows there."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(controller, 4096):
                shown += data
        except OSError:  # Linux reports the end of a terminal as an error
            pass
    os.close(controller)
    assert process.returncode == 0
    return shown.decode()
