"""nginx on loopback, with a log of what it answers."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import free_port, running_server

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
CONFIG = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format requests '$status $body_bytes_sent $request_method $uri';
    server {{
        listen 127.0.0.1:{port};
        root {folder}/root;
        access_log {folder}/access.log requests;
    }}
}}
"""
ANSWER = re.compile(r"(\d+) (\d+) (\w+) (.*)")


@dataclass(frozen=True)
class Answer:
    status: int
    n_bytes: int
    method: str
    path: str


@dataclass(frozen=True)
class WebServer:
    address: str
    root: Path
    log: Path

    def answers(self) -> list[Answer]:
        """Return what the server answered since the last call."""
        time.sleep(0.1)  # nginx writes the line after the answer
        lines = self.log.read_text().splitlines()
        os.truncate(self.log, 0)
        parts = [match for line in lines if (match := ANSWER.fullmatch(line))]
        return [Answer(int(m[1]), int(m[2]), m[3], m[4]) for m in parts]


@contextmanager
def running_nginx(folder: Path) -> Iterator[WebServer]:
    """Serve the folder ``root`` in this folder."""
    if NGINX is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    (folder / "root").mkdir()
    port = free_port()
    # Workers of a root's nginx would be nobody, who may not read in the folders of pytest.
    user = "user root;" if os.getuid() == 0 else ""
    config = CONFIG.format(folder=folder, port=port, user=user)
    (folder / "nginx.conf").write_text(config)
    command = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", str(folder / "error.log")]
    with running_server(command, port):
        yield WebServer(f"http://127.0.0.1:{port}", folder / "root", folder / "access.log")
