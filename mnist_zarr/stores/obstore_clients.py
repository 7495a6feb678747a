"""Clients of obstore for what lies behind a URL, described in the words of fsspec.

There is one only where it reads the same objects, with the same rights, as the file system of
fsspec would: who it is and where it asks must be said by the options or the environment. obstore
knows no profiles, and looks for variables of its own, so that the place is always given to it.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.config import conf

from mnist_zarr.errors import OptionError
from mnist_zarr.files.urls import EXTRA_OF_PROTOCOL, protocol_of, shown_url

# fsspec has the last word, and tries again in its own way.
RETRIES = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1)},
}
# A large object may come slowly, but does come.
TIMEOUTS = {
    "timeout": timedelta(minutes=5),
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=30),
}
BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NO_SEGMENTS = ("", ".", "..")
WORDS_OF_FSSPEC = {
    "s3": {
        "access_key_id": "key",
        "secret_access_key": "secret",
        "session_token": "token",
        "skip_signature": "anon",
        "endpoint": "endpoint_url",
        "region": "client_kwargs={'region_name': ...}",
        "region_name": "client_kwargs={'region_name': ...}",
    },
    "gcs": {"skip_signature": "token='anon'", "base_url": "endpoint_url"},
    "azure": {"access_key": "account_key", "sas_key": "sas_token", "skip_signature": "anon"},
    "http": {"default_headers": "headers"},
}


@dataclass(frozen=True)
class Wanted:
    """A client that is wanted: the class of obstore, where it asks, and how.

    Attributes
    ----------
    kind : str
        The name of the class.
    place : str
        A bucket, a container or the URL of a folder on a web server.
    address : str
        Of the server.
    prefix : str, optional
        Where in the bucket.
    config : tuple of (str, object)
        What the class is told besides.
    headers : tuple of (str, str)
        Of every request.
    """

    kind: str
    place: str
    address: str
    prefix: str | None = None
    config: tuple[tuple[str, Any], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


def check_words(url: str, options: Mapping[str, Any] | None, option_name: str) -> None:
    """Check that options are not in the words of obstore, which fsspec would not understand.

    Raises
    ------
    OptionError
        If one is; the message says how fsspec calls it, and calls them by ``option_name``.
    """
    words = WORDS_OF_FSSPEC.get(EXTRA_OF_PROTOCOL.get(protocol_of(url), ""), {})
    for word in options or {}:
        if word in words:
            raise OptionError(
                f"{shown_url(url)}: `{option_name}`: {word!r} is a word of obstore; options have "
                f"the names of fsspec, which calls it {words[word]}"
            )


def client_for(url: str, options: Mapping[str, Any]) -> Any | None:
    """Return a client of obstore that reads what fsspec reads, if there is one.

    Equal arguments give the same client with its connections.
    """
    extra = EXTRA_OF_PROTOCOL.get(protocol_of(url), "")
    find = WANTED.get(extra)
    if find is None or "::" in url or _is_configured(extra) or not _runs_here():
        return None
    wanted = find(url, dict(options))
    if wanted is None or not _is_well_formed(wanted):
        return None
    try:
        return _open(wanted)
    except Exception:  # obstore is missing, or cannot make anything of it
        return None


def _is_configured(extra: str) -> bool:
    """Whether fsspec has options of its own, from files or variables, for addresses like this."""
    return any(conf.get(name) for name, its in EXTRA_OF_PROTOCOL.items() if its == extra)


def _is_well_formed(wanted: Wanted) -> bool:
    """Whether obstore takes these texts: of others some abort the thread that hands them over."""
    try:
        parts = urlsplit(wanted.address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
    words = [wanted.address, *(value for _, value in wanted.config if isinstance(value, str))]
    texts = [*words, *(str(value) for _, value in wanted.headers)]
    return (
        is_address
        and all(text.isprintable() and text.isascii() for text in texts)
        and not any(" " in word for word in words)
    )


_runs_in: int | None = None


def _runs_here() -> bool:
    """Whether the threads of obstore run, or can begin to run, in this process."""
    return _runs_in in (None, os.getpid())


@functools.lru_cache(maxsize=32)
def _open(wanted: Wanted) -> Any:
    global _runs_in
    from obstore import store

    client_options = {
        "allow_http": wanted.address.startswith("http://"),
        "default_headers": dict(wanted.headers),
        **TIMEOUTS,
    }
    in_bucket = {} if wanted.kind == "HTTPStore" else {"prefix": wanted.prefix}
    client = getattr(store, wanted.kind)(
        wanted.place,
        **in_bucket,
        **dict(wanted.config),
        client_options=client_options,
        retry_config=RETRIES,
    )
    _runs_in = os.getpid()
    return client


def _on_web_server(url: str, options: dict[str, Any]) -> Wanted | None:
    parts = urlsplit(url)
    session = dict(options.pop("client_kwargs", None) or {})
    headers = {**(session.pop("headers", None) or {}), **(options.pop("headers", None) or {})}
    # A password is sent by fsspec only, and a query belongs to the address of one file.
    is_plain = not (options or session or parts.query or parts.fragment or "@" in parts.netloc)
    if not (is_plain and parts.hostname and _are_plain(parts.path.strip("/"))):
        return None
    return Wanted("HTTPStore", url, url, headers=tuple(sorted(headers.items())))


def _in_s3(url: str, options: dict[str, Any]) -> Wanted | None:
    client_kwargs = dict(options.pop("client_kwargs", None) or {})
    region = client_kwargs.pop("region_name", None) or _environment(
        "AWS_DEFAULT_REGION", "AWS_REGION"
    )
    address = options.pop("endpoint_url", None) or client_kwargs.pop("endpoint_url", None)
    if not address:
        if _aws_hides_an_address():
            return None
        address = _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    anon, key, secret, token = (options.pop(n, None) for n in ("anon", "key", "secret", "token"))
    if not (anon or key or secret or token):
        key, secret = _environment("AWS_ACCESS_KEY_ID"), _environment("AWS_SECRET_ACCESS_KEY")
        token = _environment("AWS_SESSION_TOKEN")
    is_known = anon or (key and secret)
    if options or client_kwargs or not is_known or (split := _split(url)) is None:
        return None
    region = region or "us-east-1"
    address = address or f"https://s3.{region}.amazonaws.com"
    if address.startswith("https://") and _environment("AWS_CA_BUNDLE"):
        return None  # obstore knows the certificates of the system
    keys = {"access_key_id": key, "secret_access_key": secret, "session_token": token}
    who = {"skip_signature": True} if anon else {k: v for k, v in keys.items() if v}
    config = {"endpoint": address, "region": region, "virtual_hosted_style_request": False, **who}
    return Wanted("S3Store", split[0], address, split[1], tuple(sorted(config.items())))


def _aws_hides_an_address() -> bool:
    """Whether botocore knows of addresses of servers from where obstore does not look."""
    if _environment("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        return True
    config = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    try:
        return "endpoint_url" in config.read_text()
    except OSError:
        return False


def _in_google(url: str, options: dict[str, Any]) -> Wanted | None:
    is_public = options.pop("token", None) == "anon"
    address = options.pop("endpoint_url", None)
    if not address and _environment("STORAGE_EMULATOR_HOST", "FSSPEC_GCS_ENDPOINT"):
        return None
    options.pop("project", None)  # says who pays for new buckets
    if options or not is_public or (split := _split(url)) is None:
        return None
    address = address or "https://storage.googleapis.com"
    config = {"base_url": address, "skip_signature": True}
    return Wanted("GCSStore", split[0], address, split[1], tuple(sorted(config.items())))


def _in_azure(url: str, options: dict[str, Any]) -> Wanted | None:
    parts = urlsplit(url)
    path = url.partition("://")[2]
    stated: dict[str, Any] = {}
    if "@" in parts.netloc:  # abfs://container@account.dfs.core.windows.net/path
        container, _, host = parts.netloc.partition("@")
        stated["account_name"] = host.partition(".")[0]
        if host.partition(".")[2] not in ("dfs.core.windows.net", "blob.core.windows.net"):
            return None
        path = f"{container}{parts.path}"
    said: dict[str, Any] = {
        name: options.pop(name, None) or _environment(f"AZURE_STORAGE_{name.upper()}")
        for name in ("account_name", "account_key", "sas_token", "connection_string")
    } | stated
    anon = options.pop("anon", None)
    split = _split(path)
    ways = [name for name in ("account_key", "sas_token", "connection_string") if said[name]]
    if options or split is None or len(ways) + bool(anon) != 1:
        return None
    if said["connection_string"]:
        said = _read_connection_string(said["connection_string"])
    account, address = said.get("account_name"), said.get("address")
    address = address or f"https://{account}.blob.core.windows.net"
    keys = {
        "account_key": said.get("account_key"),
        "sas_key": (said.get("sas_token") or "").removeprefix("?"),
    }
    who = {"skip_signature": True} if anon else {k: v for k, v in keys.items() if v}
    if not account or len(who) != 1:
        return None
    config = {"account_name": account, "endpoint": address, "use_emulator": False, **who}
    return Wanted("AzureStore", split[0], address, split[1], tuple(sorted(config.items())))


def _read_connection_string(text: str) -> dict[str, str]:
    """Return what a connection string of Azure says, in the words of adlfs.

    Source: https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string.
    """
    said = dict(part.partition("=")[::2] for part in text.split(";") if "=" in part)
    scheme = said.get("DefaultEndpointsProtocol", "https")
    suffix = said.get("EndpointSuffix", "core.windows.net")
    account = said.get("AccountName", "")
    address = said.get("BlobEndpoint") or f"{scheme}://{account}.blob.{suffix}"
    return {
        "account_name": account,
        "account_key": said.get("AccountKey", ""),
        "sas_token": said.get("SharedAccessSignature", ""),
        "address": address.rstrip("/"),
    }


WANTED: dict[str, Callable[[str, dict[str, Any]], Wanted | None]] = {
    "http": _on_web_server,
    "s3": _in_s3,
    "gcs": _in_google,
    "azure": _in_azure,
}


def _split(url: str) -> tuple[str, str | None] | None:
    """Return bucket and prefix of a URL, None if obstore would read it in another way."""
    bucket, _, prefix = url.rpartition("://")[2].partition("/")
    prefix = prefix.removesuffix("/")
    is_plain = BUCKET_NAME.fullmatch(bucket) and not set(prefix) & set("?#") and _are_plain(prefix)
    return (bucket, prefix or None) if is_plain else None


def _are_plain(path: str) -> bool:
    return not path or not any(part in NO_SEGMENTS for part in path.split("/"))


def _environment(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
