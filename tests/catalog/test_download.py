"""Downloads, from real servers on loopback that misbehave in every way seen in the wild."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from mnist_zarr.catalog.download import cache_folder, fetch, is_here
from mnist_zarr.catalog.entries import CATALOG, EMNIST_ARCHIVE, ArchiveMember, RemoteFile
from mnist_zarr.catalog.opening import open_entry
from mnist_zarr.errors import DownloadError, MissingExtraError, OptionError
from tests.support.commands import shown_on_terminal
from tests.support.partners import partner
from tests.support.servers import free_port
from tests.support.small_copy import SmallCopy, offline

pooch, trustme = partner("pooch"), partner("trustme")

DATA = b"\x1f\x8b" + bytes(range(256)) * 4000
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
PAGE = b"<!DOCTYPE html><html><body>Not found</body></html>"


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    """A server with the file at /good and everything else that a mirror may send."""
    httpserver.no_handler_status_code = 404
    httpserver.expect_request("/good/f.gz").respond_with_data(DATA)
    httpserver.expect_request("/html/f.gz").respond_with_data(PAGE)
    httpserver.expect_request("/wrong/f.gz").respond_with_data(DATA[:-1] + b"?")
    httpserver.expect_request("/short/f.gz").respond_with_data(DATA[:1000])
    return httpserver


@pytest.fixture
def down() -> str:
    """The address of a server that is down: a port that nobody listens on."""
    return f"http://127.0.0.1:{free_port()}/f.gz"


@contextlib.contextmanager
def server_that_sends_half(and_then: str) -> Iterator[str]:
    """Serve half of the file from a process of its own, then do what the line says."""
    code = (
        "import socket, time\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    print(server.getsockname()[1], flush=True)\n"
        "    while True:\n"
        "        connection, _ = server.accept()\n"
        "        with connection:\n"
        "            connection.recv(65536)\n"
        f"            head = 'HTTP/1.1 200 OK\\r\\nContent-Length: {len(DATA)}\\r\\n\\r\\n'\n"
        f"            connection.sendall(head.encode() + b'\\x1f\\x8b' + bytes({len(DATA) // 2}))\n"
        f"            {and_then}\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/f.gz"
        process.kill()


@pytest.fixture
def cut() -> Iterator[str]:
    """The address of a server that announces the whole file and hangs up half-way."""
    with server_that_sends_half("connection.close()") as url:
        yield url


def remote(*mirrors: str, checksum: str = SHA256, size: int | None = None) -> RemoteFile:
    return RemoteFile("box", "f.gz", mirrors, checksum, size)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def paths_asked_for(server: HTTPServer) -> list[str]:
    return [request.path for request, _ in server.log]


def test_a_file_is_downloaded_into_the_folder_of_its_data_set(
    server: HTTPServer, cache: Path
) -> None:
    path = fetch(remote(server.url_for("/good/f.gz"), size=len(DATA)))
    assert path == cache / "box" / "f.gz"
    assert path.read_bytes() == DATA
    assert names_in(cache / "box") == ["f.gz"]


def test_a_shared_cache_serves_other_users(server: HTTPServer) -> None:
    path = fetch(remote(server.url_for("/good/f.gz")))
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_cache_is_used_without_a_request(server: HTTPServer) -> None:
    file = remote(server.url_for("/good/f.gz"))
    assert not is_here(file)
    fetch(file)
    assert is_here(file)
    fetch(file)
    assert paths_asked_for(server) == ["/good/f.gz"]


def test_every_bad_mirror_is_passed_over_for_the_next(
    server: HTTPServer, down: str, cut: str, cache: Path
) -> None:
    bad = [server.url_for(f"/{kind}/f.gz") for kind in ("missing", "html", "wrong", "short")]
    path = fetch(remote(down, cut, *bad, server.url_for("/good/f.gz")))
    assert path.read_bytes() == DATA
    assert names_in(cache / "box") == ["f.gz"]
    assert paths_asked_for(server) == [
        *(f"/{kind}/f.gz" for kind in ("missing", "html", "wrong", "short")),
        "/good/f.gz",
    ]


def test_when_all_mirrors_fail_the_error_names_each_with_its_reason(
    server: HTTPServer, down: str, cut: str, cache: Path
) -> None:
    bad = [server.url_for(f"/{kind}/f.gz") for kind in ("missing", "html", "wrong", "short")]
    with pytest.raises(DownloadError) as caught:
        fetch(remote(down, cut, *bad, size=len(DATA)))
    first, *reasons, advice = str(caught.value).splitlines()
    assert first == "box/f.gz: no mirror gives this file:"
    for url, reason, words in zip(
        [down, cut, *bad],
        reasons,
        ["Connection refused", "IncompleteRead", "404", "HTML", "wrong bytes: sha256", "1,000"],
        strict=True,
    ):
        assert reason.startswith(f"  {url}: ")
        assert words in reason
    assert str(cache / "box" / "f.gz") in advice
    assert SHA256.removeprefix("sha256:") in advice
    assert names_in(cache / "box") == []


def test_a_mirror_that_never_ends_is_left_at_the_known_size(server: HTTPServer) -> None:
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 20
            yield bytes(1 << 20)

    server.expect_request("/endless/f.gz").respond_with_handler(lambda _: Response(flood()))
    with pytest.raises(DownloadError, match=r"more than 1,0"):
        fetch(remote(server.url_for("/endless/f.gz"), size=len(DATA)))
    assert sent < 1 << 26


def test_a_damaged_file_in_the_cache_is_fetched_again(server: HTTPServer, cache: Path) -> None:
    (cache / "box").mkdir(parents=True)
    (cache / "box" / "f.gz").write_bytes(b"damaged")
    assert fetch(remote(server.url_for("/good/f.gz"))).read_bytes() == DATA


def test_a_damaged_file_stays_and_is_named_when_no_mirror_has_a_better_one(
    server: HTTPServer, cache: Path
) -> None:
    (cache / "box").mkdir(parents=True)
    (cache / "box" / "f.gz").write_bytes(b"mine")
    with pytest.raises(DownloadError) as caught:
        fetch(remote(server.url_for("/wrong/f.gz")))
    assert f"  {cache / 'box' / 'f.gz'}: wrong bytes" in str(caught.value)
    assert (cache / "box" / "f.gz").read_bytes() == b"mine"


def test_a_right_file_put_there_by_hand_is_used(cache: Path, down: str) -> None:
    (cache / "box").mkdir(parents=True)
    (cache / "box" / "f.gz").write_bytes(DATA)
    assert fetch(remote(down)) == cache / "box" / "f.gz"


def test_a_mirror_of_ones_own_is_asked_first_and_the_others_after_it(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_ZARR_MIRROR", server.url_for("/mine/"))
    assert fetch(remote(server.url_for("/good/f.gz"))).read_bytes() == DATA
    assert paths_asked_for(server) == ["/mine/box/f.gz", "/good/f.gz"]


def test_a_folder_can_be_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my mirror" / "box"
    folder.mkdir(parents=True)
    (folder / "f.gz").write_bytes(DATA)
    monkeypatch.setenv("MNIST_ZARR_MIRROR", folder.parent.as_uri())
    assert fetch(remote()).read_bytes() == DATA
    (folder / "g.gz").write_bytes(b"wrong")
    with pytest.raises(DownloadError, match="wrong bytes"):
        fetch(RemoteFile("box", "g.gz", (), SHA256))


def test_a_mirror_of_another_kind_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_ZARR_MIRROR", "ftp://example.org")
    with pytest.raises(OptionError, match=r"MNIST_ZARR_MIRROR: expected .*'ftp://example.org'"):
        fetch(remote())


class TestHttps:
    """A server with a certificate that requests is told to trust."""

    @pytest.fixture
    def secure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        with HTTPServer(host="127.0.0.1", port=0, ssl_context=context) as server:
            yield server

    def test_a_file_comes_over_https(self, secure: HTTPServer) -> None:
        secure.expect_request("/f.gz").respond_with_data(DATA)
        assert fetch(remote(secure.url_for("/f.gz"))).read_bytes() == DATA

    def test_a_redirect_within_https_is_followed(self, secure: HTTPServer) -> None:
        moved = Response(status=302, headers={"Location": "/elsewhere"})
        secure.expect_request("/f.gz").respond_with_response(moved)
        secure.expect_request("/elsewhere").respond_with_data(DATA)
        assert fetch(remote(secure.url_for("/f.gz"))).read_bytes() == DATA

    def test_a_redirect_from_https_to_http_is_not_followed(
        self, secure: HTTPServer, server: HTTPServer
    ) -> None:
        plain = server.url_for("/good/f.gz")
        moved = Response(status=302, headers={"Location": plain})
        secure.expect_request("/f.gz").respond_with_response(moved)
        with pytest.raises(DownloadError, match=f"redirects from https to {plain}"):
            fetch(remote(secure.url_for("/f.gz")))
        assert paths_asked_for(server) == []

    def test_a_certificate_of_an_unknown_authority_is_refused(
        self, secure: HTTPServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        secure.expect_request("/f.gz").respond_with_data(DATA)
        with pytest.raises(DownloadError, match="certificate verify failed"):
            fetch(remote(secure.url_for("/f.gz")))


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/f.gz"])
def test_a_redirect_away_from_the_web_is_not_followed(server: HTTPServer, location: str) -> None:
    moved = Response(status=302, headers={"Location": location})
    server.expect_request("/moved/f.gz").respond_with_response(moved)
    with pytest.raises(DownloadError, match="No connection adapters"):
        fetch(remote(server.url_for("/moved/f.gz")))


def test_a_server_that_would_compress_is_asked_not_to(server: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        assert "gzip" not in request.headers.get("Accept-Encoding", "")
        return Response(DATA)

    server.expect_request("/asked/f.gz").respond_with_handler(answer)
    assert fetch(remote(server.url_for("/asked/f.gz"))).read_bytes() == DATA


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_server_that_announces_gzip_files_as_an_encoding_is_no_problem(
    server: HTTPServer, encoding: str
) -> None:
    data = gzip.compress(DATA)
    server.expect_request("/a/f.gz").respond_with_data(data, headers={"Content-Encoding": encoding})
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert fetch(remote(server.url_for("/a/f.gz"), checksum=checksum)).read_bytes() == data


FETCH = (
    "import sys\n"
    "from mnist_zarr.catalog.download import fetch\n"
    "from mnist_zarr.catalog.entries import RemoteFile\n"
    "print(fetch(RemoteFile('box', 'f.gz', (sys.argv[1],), sys.argv[2])))"
)


def test_two_processes_download_a_file_once(server: HTTPServer, cache: Path) -> None:
    def answer(_: Request) -> Response:
        time.sleep(0.5)  # time enough for the other process to come and ask
        return Response(DATA)

    server.expect_request("/slow/f.gz").respond_with_handler(answer)
    command = [sys.executable, "-c", FETCH, server.url_for("/slow/f.gz"), SHA256]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert told == [str(cache / "box" / "f.gz")] * 2
    assert paths_asked_for(server) == ["/slow/f.gz"]


def test_a_killed_download_leaves_no_file_and_the_next_one_removes_its_rubbish(
    server: HTTPServer, cache: Path
) -> None:
    with server_that_sends_half("time.sleep(60)") as url:
        process = subprocess.Popen([sys.executable, "-c", FETCH, url, SHA256])
        deadline = time.monotonic() + 30
        while not list(cache.glob("box/.f.gz.downloading-*/f.gz")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert not (cache / "box" / "f.gz").exists()
    assert fetch(remote(server.url_for("/good/f.gz"))).read_bytes() == DATA
    left = {path.name for path in (cache / "box").iterdir()}
    assert left <= {"f.gz", ".f.gz.lock"}


def test_a_download_shows_its_progress_on_a_terminal_and_nowhere_else(
    server: HTTPServer, cache: Path
) -> None:
    command = [sys.executable, "-c", FETCH, server.url_for("/good/f.gz"), SHA256]
    assert "f.gz: 100%" in shown_on_terminal(command)
    (cache / "box" / "f.gz").unlink()
    quiet = subprocess.run(command, capture_output=True, check=True)
    assert quiet.stderr == b""


def test_a_cache_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MNIST_ZARR_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot be written .*MNIST_ZARR_CACHE"):
        fetch(remote())


def test_the_platform_decides_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_ZARR_CACHE")
    assert cache_folder().name == "mnist-zarr"


def test_without_pooch_a_cached_file_is_used_and_a_download_says_how_to_get_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mnist-zarr\[download\]'"):
        fetch(remote("https://example.org/f.gz"))
    (cache / "box" / "f.gz").write_bytes(DATA)
    assert fetch(remote()) == cache / "box" / "f.gz"


class TestArchive:
    MEMBER = b"\x1f\x8b" + b"member" * 1000
    MD5 = f"md5:{hashlib.md5(MEMBER).hexdigest()}"

    @pytest.fixture
    def archive(self, server: HTTPServer, tmp_path: Path) -> RemoteFile:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("gzip/m.gz", self.MEMBER)
            archive.writestr("gzip/n.gz", self.MEMBER)
        data = path.read_bytes()
        server.expect_request("/a.zip").respond_with_data(data)
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return RemoteFile("box", "a.zip", (server.url_for("/a.zip"),), checksum)

    def test_members_are_extracted_from_one_download(
        self, archive: RemoteFile, server: HTTPServer, cache: Path
    ) -> None:
        first, second = (ArchiveMember(archive, f"gzip/{n}.gz", self.MD5) for n in "mn")
        assert not is_here(first)
        assert fetch(first) == cache / "box" / "m.gz"
        assert is_here(second)
        assert fetch(second).read_bytes() == self.MEMBER
        assert paths_asked_for(server) == ["/a.zip"]
        (cache / "box" / "a.zip").unlink()
        assert fetch(first).read_bytes() == self.MEMBER
        assert names_in(cache / "box") == ["m.gz", "n.gz"]

    def test_a_member_with_wrong_bytes_is_not_left_behind(
        self, archive: RemoteFile, cache: Path
    ) -> None:
        with pytest.raises(DownloadError, match=r"member gzip/m\.gz: wrong bytes: md5 is"):
            fetch(ArchiveMember(archive, "gzip/m.gz", "md5:0"))
        assert names_in(cache / "box") == ["a.zip"]

    def test_a_member_that_is_damaged_later_is_extracted_again(self, archive: RemoteFile) -> None:
        member = ArchiveMember(archive, "gzip/m.gz", self.MD5)
        path = fetch(member)
        path.write_bytes(b"damaged")
        assert fetch(member).read_bytes() == self.MEMBER

    def test_a_member_that_is_not_there_raises_an_error(self, archive: RemoteFile) -> None:
        with pytest.raises(DownloadError, match=r"There is no item named 'gzip/x\.gz'"):
            fetch(ArchiveMember(archive, "gzip/x.gz", self.MD5))


def test_the_variants_of_emnist_share_one_download_of_the_archive(
    cache: Path, mirror: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallCopy(CATALOG["emnist-mnist"], mirror)
    archive = (mirror / "emnist" / "gzip.zip").read_bytes()
    httpserver.expect_request("/emnist/gzip.zip").respond_with_data(archive)
    monkeypatch.setenv("MNIST_ZARR_MIRROR", httpserver.url_for("/"))
    for _ in range(2):
        open_entry(small.entry)
    assert len(httpserver.log) == 1
    archives = {
        file.archive
        for name, entry in CATALOG.items()
        for file in entry.files
        if name.startswith("emnist") and isinstance(file, ArchiveMember)
    }
    assert archives == {EMNIST_ARCHIVE}


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "mnist"])
def test_files_that_are_not_the_published_ones_are_refused(
    name: str, mirror: Path, cache: Path
) -> None:
    SmallCopy(CATALOG[name], mirror)
    file = offline(CATALOG[name]).splits[0].images
    with pytest.raises(DownloadError, match=r"mirror.* bytes instead of ") as caught:
        fetch(file)
    assert (
        f"{mirror.as_uri()}/{name.partition('-')[0] if name.startswith('emnist') else name}/"
        in str(caught.value)
    )
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name[0] != "."]
