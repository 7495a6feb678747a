"""Where obstore is asked, and where fsspec is, since obstore would ask elsewhere or as another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mnist_zarr.errors import OptionError
from mnist_zarr.stores.obstore_clients import client_for
from mnist_zarr.stores.targets import parse_target
from tests.support.partners import partner

KEYS = {"key": "k", "secret": "s"}
ANON: dict[str, Any] = {"anon": True}
AWS = "https://s3.us-east-1.amazonaws.com"
ACCOUNT = {"account_name": "me", "account_key": "a2V5"}
IN_THE_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "s"}


@pytest.fixture(autouse=True)
def _a_clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    partner("obstore")
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))


def asked(url: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return where obstore asks, and as whom."""
    client = client_for(url, options)
    if client is None:
        return None
    return {"prefix": client.prefix, **client.config}


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        (
            "s3://box/a/t.zarr",
            ANON,
            {"endpoint": AWS, "skip_signature": "true", "prefix": "a/t.zarr"},
        ),
        ("s3a://box/a/t.zarr/", ANON, {"bucket": "box", "prefix": "a/t.zarr"}),
        ("s3://box", ANON, {"bucket": "box", "prefix": None}),
        ("s3://box/t", KEYS, {"access_key_id": "k", "secret_access_key": "s"}),
        ("s3://box/t", {**KEYS, "token": "t"}, {"session_token": "t"}),
        ("s3://box/t", {**ANON, "endpoint_url": "http://h:1"}, {"endpoint": "http://h:1"}),
        (
            "s3://box/t",
            {**ANON, "client_kwargs": {"endpoint_url": "http://h:1", "region_name": "eu-west-1"}},
            {"endpoint": "http://h:1", "region": "eu-west-1"},
        ),
        (
            "s3://box/t",
            {**ANON, "client_kwargs": {"region_name": "eu-west-1"}},
            {"endpoint": "https://s3.eu-west-1.amazonaws.com"},
        ),
        ("gs://box/t", {"token": "anon"}, {"base_url": "https://storage.googleapis.com"}),
        (
            "gcs://box/t",
            {"token": "anon", "endpoint_url": "http://h:1"},
            {"base_url": "http://h:1"},
        ),
        ("az://box/t", ACCOUNT, {"endpoint": "https://me.blob.core.windows.net", "prefix": "t"}),
        ("abfs://box@me.dfs.core.windows.net/t", {"anon": True}, {"account_name": "me"}),
        ("az://box/t", {"account_name": "me", "sas_token": "?sig=1"}, {"sas_key": "sig=1"}),
        (
            "az://box/t",
            {"connection_string": "AccountName=me;AccountKey=a2V5YQ==;BlobEndpoint=http://h:1/me;"},
            {"account_key": "a2V5YQ==", "endpoint": "http://h:1/me"},
        ),
        (
            "az://box/t",
            {"connection_string": "AccountName=me;AccountKey=a2V5;EndpointSuffix=core.cloud.cn"},
            {"endpoint": "https://me.blob.core.cloud.cn"},
        ),
    ],
)
def test_the_words_of_fsspec_say_where_obstore_asks_and_as_whom(
    url: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    told = asked(url, options)
    assert told is not None
    said = {name.removeprefix("aws_").removeprefix("azure_"): told[name] for name in told}
    assert {name: said.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        (IN_THE_ENVIRONMENT, {}, {"access_key_id": "e", "endpoint": AWS}),
        ({**IN_THE_ENVIRONMENT, "AWS_SESSION_TOKEN": "t"}, {}, {"session_token": "t"}),
        ({**IN_THE_ENVIRONMENT, "AWS_ENDPOINT_URL": "http://h:1"}, {}, {"endpoint": "http://h:1"}),
        ({"AWS_ENDPOINT_URL_S3": "http://h:1"}, ANON, {"endpoint": "http://h:1"}),
        ({"AWS_DEFAULT_REGION": "x"}, ANON, {"endpoint": "https://s3.x.amazonaws.com"}),
        # Variables of obstore alone, which lead nobody else to another place.
        ({"AWS_ENDPOINT": "http://elsewhere"}, ANON, {"endpoint": AWS}),
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, ANON, {"endpoint": AWS}),
    ],
)
def test_variables_of_the_environment_mean_what_they_mean_to_s3fs(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: dict[str, Any],
    expected: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = asked("s3://box/t", options)
    assert told is not None
    assert {name: told.get(name) for name in expected} == expected
    assert told["virtual_hosted_style_request"] == "false"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("memory://box", {}),
        ("simplecache::s3://box/t", ANON),
        ("s3://box/t", {}),  # a profile, a role or the machine has the key
        ("s3://box/t", {"key": "k"}),
        ("s3://box/t", {**ANON, "requester_pays": True}),
        ("s3://box/t", {**ANON, "client_kwargs": {"verify": False}}),
        ("s3://box//t", ANON),
        ("s3://box/a/../t", ANON),
        ("s3://box/t?versionId=1", ANON),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/x/t", ANON),
        ("gs://box/t", {}),
        ("gs://box/t", {"token": "key.json"}),
        ("az://box/t", {"account_name": "me"}),
        ("az://box/t", {**ACCOUNT, "sas_token": "sig=1"}),
        ("az://box/t", {"account_key": "a2V5"}),
        ("abfs://box@me.example.org/t", {"anon": True}),
        ("https://me:word@host/t", {}),
        ("https://host/t?sig=1", {}),
        ("https://host/a//t", {}),
        ("https://host/t", {"client_kwargs": {"trust_env": True}}),
        ("https://host/t", {"auth": "x"}),
        # Of these obstore would abort the thread.
        ("s3://box/t", {**ANON, "endpoint_url": "127.0.0.1:9000"}),
        ("s3://box/t", {**ANON, "endpoint_url": "http://"}),
        ("s3://box/t", {**ANON, "endpoint_url": "http://a host"}),
        ("s3://box/t", {"key": "k", "secret": "of a file\n"}),
        ("https://host/t", {"headers": {"A": "line\nline"}}),
    ],
)
def test_where_obstore_might_read_something_else_fsspec_is_asked(
    url: str, options: dict[str, Any]
) -> None:
    assert client_for(url, options) is None


@pytest.mark.parametrize("protocol", ["s3", "s3a"])
def test_what_fsspec_is_configured_with_is_left_to_it(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client_for("s3://box/t", ANON) is not None
    monkeypatch.setitem(fsspec.config.conf, protocol, {"endpoint_url": "http://127.0.0.1:1"})
    assert client_for("s3://box/t", ANON) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ("AWS_CA_BUNDLE", "/certificates.pem"),
        ("AWS_CONFIG_FILE", ""),
    ],
)
def test_settings_that_only_botocore_knows_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    assert client_for("s3://box/t", ANON) is not None
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://h:1\n")
    monkeypatch.setenv(name, value or str(tmp_path / "config"))
    assert client_for("s3://box/t", ANON) is None


def test_headers_are_sent_with_every_request() -> None:
    options = {"headers": {"X-A": "1"}, "client_kwargs": {"headers": {"X-B": "2"}}}
    client = client_for("https://host/t.zarr", options)
    assert client is not None
    assert client.client_options["default_headers"] == {"x-a": b"1", "x-b": b"2"}
    assert options == {"headers": {"X-A": "1"}, "client_kwargs": {"headers": {"X-B": "2"}}}


def test_equal_words_give_the_same_connections() -> None:
    first, second = (client_for("https://host/t.zarr", {"headers": {"a": "b"}}) for _ in range(2))
    assert first is second
    assert first is not client_for("https://host/t.zarr", {})


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("s3://box/t", {"region": "x"}, r"'region' .* calls it client_kwargs=\{'region_name'"),
        ("s3://box/t", {"skip_signature": True}, "'skip_signature' is a word .* calls it anon"),
        ("gs://box/t", {"base_url": "x"}, "'base_url' .* calls it endpoint_url"),
        ("az://box/t", {"sas_key": "x"}, "'sas_key' .* calls it sas_token"),
        ("https://h/t", {"default_headers": {}}, "'default_headers' .* calls it headers"),
    ],
)
def test_words_of_obstore_are_translated(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{url}: `storage_options`: {message}"):
        parse_target(url, options)
    with pytest.raises(OptionError, match=f"`source_options`: {message}"):
        parse_target(url, options, "source_options")
