"""Names of IDX files: what they say, and which belong together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from mnist_zarr.errors import SourceError, SourceNotFoundError
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_names import (
    IdxName,
    IdxPair,
    find_labels,
    find_pairs,
    is_folder,
    parse_name,
)
from tests.support.idx_pairs import pixels, put_pair

if TYPE_CHECKING:
    from tests.conftest import Serve


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def names_of(pairs: list[IdxPair]) -> list[tuple[str, str | None, str | None]]:
    return [
        (os.path.basename(pair.images), pair.labels and os.path.basename(pair.labels), pair.split)
        for pair in pairs
    ]


@pytest.mark.parametrize(
    ("name", "prefix", "role", "is_gzip", "split"),
    [
        ("train-images-idx3-ubyte", "train", "images", False, "train"),
        ("train-images-idx3-ubyte.gz", "train", "images", True, "train"),
        ("train-labels-idx1-ubyte.gz", "train", "labels", True, "train"),
        ("t10k-images-idx3-ubyte", "t10k", "images", False, "test"),
        ("t10k-labels.idx1-ubyte", "t10k", "labels", False, "test"),
        ("t10k-images.idx3-ubyte.gz", "t10k", "images", True, "test"),
        ("test-images-idx3-ubyte", "test", "images", False, "test"),
        ("train-images.idx3.ubyte", "train", "images", False, "train"),
        ("train_images_idx3_ubyte", "train", "images", False, "train"),
        ("train-image-idx3-ubyte", "train", "images", False, "train"),
        ("train-label-idx1-ubyte", "train", "labels", False, "train"),
        ("train-imgs-idx3-ubyte", "train", "images", False, "train"),
        ("train-img-idx3-ubyte", "train", "images", False, "train"),
        ("TRAIN-IMAGES-IDX3-UBYTE.GZ", "train", "images", True, "train"),
        ("T10K-Labels.IDX1-ubyte", "t10k", "labels", False, "test"),
        (
            "emnist-balanced-train-images-idx3-ubyte.gz",
            "emnist-balanced-train",
            *("images", True),
            "train",
        ),
        (
            "emnist-letters-test-labels-idx1-ubyte",
            "emnist-letters-test",
            *("labels", False),
            "test",
        ),
        ("qmnist-test-labels-idx2-int.gz", "qmnist-test", "labels", True, "test"),
        ("val-images-idx3-ubyte", "val", "images", False, "val"),
        ("valid-images-idx3-ubyte", "valid", "images", False, "val"),
        ("validation-images-idx3-ubyte", "validation", "images", False, "val"),
        ("training-labels-idx1-ubyte", "training", "labels", False, "train"),
        ("testing-images-idx3-ubyte", "testing", "images", False, "test"),
        ("train-bells-images-idx3-ubyte", "train-bells", "images", False, "train"),
        ("t10k-bells-labels-idx1-ubyte", "t10k-bells", "labels", False, "test"),
        ("my_train_set-images-idx3-ubyte", "my_train_set", "images", False, "train"),
        ("my data train-images-idx3-ubyte", "my data train", "images", False, "train"),
        ("my%20train%20set-images-idx3-ubyte", "my%20train%20set", "images", False, "train"),
        ("images-train-idx3-ubyte", "train", "images", False, "train"),
        ("labels_validation.idx1-ubyte.gz", "validation", "labels", True, "val"),
        ("images-t10k-idx3-ubyte", "t10k", "images", False, "test"),
        ("bells-images-idx3-ubyte", "bells", "images", False, "bells"),
        ("my_t10k_images-idx3-ubyte", "my_t10k", "images", False, "test"),
        ("images-idx3-ubyte", "", "images", False, None),
        ("labels.idx1-ubyte.gz", "", "labels", True, None),
        ("train-images.idx3", "train", "images", False, "train"),
        ("train-images-idx4-float", "train", "images", False, "train"),
        ("train-images-idx10-double.gz", "train", "images", True, "train"),
        ("images-train-images-idx3-ubyte", "images-train", "images", False, "train"),
        ("train-images.idx", "train", "images", False, "train"),
        ("Training images.idx", "training", "images", False, "train"),
        ("train images idx3 ubyte.gz", "train", "images", True, "train"),
        ("train-images-idx3-ubyte (1)", "train", "images", False, "train"),
        ("t10k-labels-idx1-ubyte(2).gz", "t10k", "labels", True, "test"),
    ],
)
def test_a_usual_name_tells_prefix_role_gzip_and_split(
    name: str, prefix: str, role: Any, is_gzip: bool, split: str | None
) -> None:
    parsed = parse_name(name)
    assert parsed == IdxName(prefix, role, is_gzip)
    assert parsed.split == split


@pytest.mark.parametrize(
    "name",
    [
        "",
        "train",
        "photo.png",
        "train-images",
        "train-images.gz",
        "train-images-idx-ubyte",
        "train-images-idx3-ubyte.zip",
        "train-images-idx3-ubyte.gz.part",
        "train-images-idx3-ubyte (copy)",
        "train-images-idx3-ubyte.gz.gz",
        "train-images-idx3-word",
        "train-images-idx3ubyte",
        "train-pictures-idx3-ubyte",
        "emnist-balanced-mapping.txt",
        "k49-train-imgs.npz",
        "train-images-idx3-ubyte/",
        "train-images-idx3-ubyte/readme",
        "._train-images-idx3-ubyte",
        ".train-images-idx3-ubyte",
    ],
)
def test_any_other_name_tells_nothing(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(
    "path",
    [
        "/data/labels-train/t10k-images-idx3-ubyte",
        "https://example.org/labels/t10k-images-idx3-ubyte",
        Path("labels") / "t10k-images-idx3-ubyte",
    ],
)
def test_the_folders_of_a_path_are_ignored(path: str | Path) -> None:
    assert parse_name(path) == IdxName("t10k", "images", is_gzip=False)


IMAGES_AND_LABELS = [
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
    ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"),
    ("train-images-idx3-ubyte", "train-labels.idx1-ubyte"),
    ("train-images.idx3-ubyte", "train-labels-idx1-ubyte.gz"),
    ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
    ("test-images-idx3-ubyte.gz", "test-labels-idx1-ubyte.gz"),
    ("emnist-byclass-train-images-idx3-ubyte.gz", "emnist-byclass-train-labels-idx1-ubyte.gz"),
    ("qmnist-train-images-idx3-ubyte.gz", "qmnist-train-labels-idx2-int.gz"),
    ("images-idx3-ubyte", "labels-idx1-ubyte"),
    ("images-train-idx3-ubyte", "labels-train-idx1-ubyte"),
    ("train-bells-images-idx3-ubyte", "train-bells-labels-idx1-ubyte"),
]


@pytest.mark.parametrize(
    ("images", "labels"), [*IMAGES_AND_LABELS, ("TRAIN-IMAGES-IDX3-UBYTE", "TRAIN-labels.idx1")]
)
def test_the_label_file_beside_is_found_however_it_is_spelt(
    tmp_path: Path, images: str, labels: str
) -> None:
    put(tmp_path, images, labels, "other-labels-idx1-ubyte", "t-labels-idx1-ubyte", "notes.txt")
    assert find_labels(tmp_path / images) == str(tmp_path / labels)


@pytest.mark.parametrize(("images", "labels"), IMAGES_AND_LABELS)
def test_the_label_file_is_found_on_an_fsspec_file_system(
    memory_url: str, images: str, labels: str
) -> None:
    for name in (images, labels, "other-labels-idx1-ubyte"):
        fsspec.filesystem("memory").pipe_file(f"/box/{name}", b"x")
    assert find_labels(f"{memory_url}/{images}") == f"{memory_url}/{labels}"


@pytest.mark.parametrize(("images", "labels"), IMAGES_AND_LABELS)
def test_the_label_file_is_found_on_a_web_server_without_a_listing(
    serve: Serve, images: str, labels: str
) -> None:
    url = serve(f"/mnist/{images}", b"x")
    assert find_labels(url) is None
    assert serve(f"/mnist/{labels}", b"x") == find_labels(url)


@pytest.mark.parametrize("status", [401, 403, 405, 500])
def test_a_listing_that_the_web_server_refuses_does_no_harm(
    httpserver: HTTPServer, serve: Serve, status: int
) -> None:
    httpserver.expect_request("/box/").respond_with_data("no", status=status)
    url = serve("/box/train-images-idx3-ubyte.gz", b"x")
    labels = serve("/box/train-labels-idx1-ubyte.gz", b"x")
    assert find_labels(url) == labels


@pytest.mark.parametrize("page", ["<p>Hi</p>", "<a href='notes.txt'>notes</a>"])
def test_a_folder_page_that_names_no_labels_does_no_harm(
    httpserver: HTTPServer, serve: Serve, page: str
) -> None:
    httpserver.expect_request("/box/").respond_with_data(page, content_type="text/html")
    url = serve("/box/train-images-idx3-ubyte.gz", b"x")
    assert serve("/box/train-labels-idx1-ubyte.gz", b"x") == find_labels(url)


def test_a_folder_page_of_a_web_server_is_used_where_there_is_one(httpserver: HTTPServer) -> None:
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.path)
        page = '<a href="train-labels.idx1-ubyte.gz">labels</a> <a href="../">up</a>'
        return Response(page, content_type="text/html")

    httpserver.expect_request("/box/").respond_with_handler(answer)
    url = httpserver.url_for("/box/train-images-idx3-ubyte")
    assert find_labels(url) == httpserver.url_for("/box/train-labels.idx1-ubyte.gz")
    assert asked == ["/box/"]


def test_raw_labels_are_preferred_to_gzip(tmp_path: Path) -> None:
    put(
        tmp_path, "train-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte", "train-images-idx3-ubyte"
    )
    for images in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        assert find_labels(tmp_path / images) == str(tmp_path / "train-labels.idx1-ubyte")


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "photo.png", "test-images-idx3-ubyte"])
def test_no_labels_are_found_for_what_is_no_image_file_or_has_none(
    tmp_path: Path, name: str
) -> None:
    put(tmp_path, name, "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
    assert find_labels(tmp_path / name) is None


def test_no_labels_are_found_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert find_labels(tmp_path / "none" / "train-images-idx3-ubyte") is None
    assert find_labels("memory://none/train-images-idx3-ubyte") is None


def test_labels_are_found_beside_a_bare_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz")
    monkeypatch.chdir(tmp_path)
    assert find_labels("train-images-idx3-ubyte") == "train-labels-idx1-ubyte.gz"


def test_storage_options_reach_the_file_system_that_is_searched(httpserver: HTTPServer) -> None:
    page = '<a href="train-images-idx3-ubyte">x</a> <a href="train-labels-idx1-ubyte">x</a>'
    httpserver.expect_request("/box/", headers={"Key": "open"}).respond_with_data(
        page, content_type="text/html"
    )
    box = httpserver.url_for("/box/")
    images, labels = f"{box}train-images-idx3-ubyte", f"{box}train-labels-idx1-ubyte"
    options = {"headers": {"Key": "open"}}
    assert find_labels(images) is None
    assert find_labels(images, storage_options=options) == labels
    assert find_pairs(box, storage_options=options) == [IdxPair(images, labels, "train")]


def test_the_root_of_a_file_system_is_a_folder_too(memory_url: str) -> None:
    fsspec.filesystem("memory").pipe_file("/train-images-idx3-ubyte", b"x")
    pair = IdxPair("memory://train-images-idx3-ubyte", None, "train")
    assert find_pairs("memory://") == [pair]


def test_train_and_test_are_paired_and_train_stands_first(tmp_path: Path) -> None:
    for suffix in ("", ".gz"):
        folder = put(
            tmp_path / f"box{suffix}",
            f"t10k-images-idx3-ubyte{suffix}",
            f"t10k-labels-idx1-ubyte{suffix}",
            f"train-images-idx3-ubyte{suffix}",
            f"train-labels-idx1-ubyte{suffix}",
        )
        assert names_of(find_pairs(folder)) == [
            (f"train-images-idx3-ubyte{suffix}", f"train-labels-idx1-ubyte{suffix}", "train"),
            (f"t10k-images-idx3-ubyte{suffix}", f"t10k-labels-idx1-ubyte{suffix}", "test"),
        ]


def test_the_paths_of_a_pair_stand_in_the_folder_as_it_was_named(tmp_path: Path) -> None:
    put(tmp_path, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    expected = IdxPair(
        f"{tmp_path}/train-images-idx3-ubyte", f"{tmp_path}/train-labels-idx1-ubyte", "train"
    )
    assert find_pairs(tmp_path) == find_pairs(f"{tmp_path}/") == [expected]


def test_other_splits_come_after_train_and_test_by_name(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{split}-images-idx3-ubyte" for split in ("val", "t10k", "extra", "train")),
        "val-labels-idx1-ubyte",
    )
    assert names_of(find_pairs(tmp_path)) == [
        ("train-images-idx3-ubyte", None, "train"),
        ("t10k-images-idx3-ubyte", None, "test"),
        ("extra-images-idx3-ubyte", None, "extra"),
        ("val-images-idx3-ubyte", "val-labels-idx1-ubyte", "val"),
    ]


def test_files_of_other_kinds_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    put(
        tmp_path,
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "README.md",
        ".train-images-idx3-ubyte.part",
        "._train-images-idx3-ubyte",
        "._t10k-labels-idx1-ubyte",
    )
    (tmp_path / "deeper").mkdir()
    put(tmp_path / "deeper", "t10k-images-idx3-ubyte")
    assert [name for name, *_ in names_of(find_pairs(tmp_path))] == ["train-images-idx3-ubyte"]


@pytest.mark.parametrize("where", ["local", "memory"])
def test_folders_that_are_called_as_the_files_beside_them_are_passed_over(
    memory_url: str, tmp_path: Path, where: str
) -> None:
    box = str(tmp_path) if where == "local" else memory_url
    fs, inner = fsspec.url_to_fs(box)
    for name in ("images-idx3-ubyte", "labels-idx1-ubyte"):  # as Kaggle hands out MNIST
        fs.makedirs(f"{inner}/train-{name}")
        fs.pipe_file(f"{inner}/train-{name}/train-{name}", b"x")
        fs.pipe_file(f"{inner}/train-{name.replace('-', '.', 1)}", b"x")
    images, labels = f"{box}/train-images.idx3-ubyte", f"{box}/train-labels.idx1-ubyte"
    assert find_pairs(box) == [IdxPair(images, labels, "train")]
    assert find_labels(images) == labels


def test_labels_without_their_images_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
    with pytest.raises(SourceError, match="'t10k-labels-idx1-ubyte' has no image file beside it"):
        find_pairs(tmp_path)


def test_idx_files_of_other_names_are_listed_with_the_way_to_use_them(tmp_path: Path) -> None:
    write_idx(pixels(6, 4, 3), tmp_path / "X_train")
    write_idx(pixels(6), tmp_path / "y_train.gz")
    put(tmp_path, "notes.txt")
    with pytest.raises(SourceError, match="got none among 3 files; by their content") as caught:
        find_pairs(tmp_path)
    for part in (
        "'X_train' uint8 (6, 4, 3), 'y_train.gz' uint8 (6,)",
        f"`source='{tmp_path}/X_train'`, `labels='{tmp_path}/y_train.gz'`, `split='train'`",
    ):
        assert part in str(caught.value)


KANNADA = ("X_kannada_MNIST_{}-idx3-ubyte.gz", "y_kannada_MNIST_{}-idx1-ubyte.gz")
MORPHO = ("{}-pictures-0_3-idx3", "{}-classes-0_3-idx1")
OTHERS = ("pixels of {} (1).idx", "digits of {} (1).idx")


@pytest.mark.parametrize("names", [KANNADA, MORPHO, OTHERS], ids=["Kannada", "Morpho", "others"])
def test_pairs_of_other_names_are_found_by_content_and_their_use_is_shown(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    # As many of each: only the names tell which belong together.
    for split in ("test", "train"):
        write_idx(pixels(6, 4, 3), tmp_path / names[0].format(split))
        write_idx(pixels(6), tmp_path / names[1].format(split))
    with pytest.raises(SourceError) as caught:
        find_pairs(tmp_path)
    images, labels = (
        [f"{tmp_path}/{name.format(split)}" for split in ("train", "test")] for name in names
    )
    use = f"name them: `source={images}`, `labels={labels}`, `split=['train', 'test']`"
    assert str(caught.value).endswith(use)


def test_of_files_by_content_those_without_labels_are_said_to_have_none(tmp_path: Path) -> None:
    write_idx(pixels(6, 4, 3), tmp_path / "X_train")
    write_idx(pixels(6), tmp_path / "y_train")
    write_idx(pixels(5, 4, 3), tmp_path / "X_test")
    write_idx(pixels(5, dtype="float32"), tmp_path / "weights_test")
    with pytest.raises(SourceError, match=r"`labels=\['.*/y_train', False\]`"):
        find_pairs(tmp_path)


def test_a_second_download_of_one_name_may_be_another_data_set(tmp_path: Path) -> None:
    for copy in ("", " (1)"):
        put(tmp_path, f"train-images-idx3-ubyte{copy}.gz")
        put(tmp_path, f"train-labels-idx1-ubyte{copy}.gz")
    with pytest.raises(SourceError, match=r"more than one data set: .* \(1\)\.gz'"):
        find_pairs(tmp_path)
    for role in ("images-idx3", "labels-idx1"):
        (tmp_path / f"train-{role}-ubyte.gz").unlink()
    (pair,) = find_pairs(tmp_path)
    assert pair.labels == f"{tmp_path}/train-labels-idx1-ubyte (1).gz"


def test_a_folder_of_pictures_says_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    put(tmp_path / "cat", "1.png")
    with pytest.raises(SourceError, match="it holds pictures, which open_pictures and build read"):
        find_pairs(tmp_path)


def test_a_raw_file_is_preferred_to_a_gzip_file_of_the_same_name(tmp_path: Path) -> None:
    put(
        tmp_path,
        "train-images-idx3-ubyte.gz",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz",
        "train-labels.idx1-ubyte",
    )
    assert names_of(find_pairs(tmp_path)) == [
        ("train-images-idx3-ubyte", "train-labels.idx1-ubyte", "train")
    ]


def test_raw_and_gzip_files_of_one_name_are_copies_or_refused(tmp_path: Path) -> None:
    folder, copy = f"{tmp_path}/", tmp_path / "train-images-idx3-ubyte.gz"
    images = put_pair(tmp_path, "train", pixels(6, 4, 3), pixels(6))
    put_pair(tmp_path, "train", pixels(6, 4, 3), pixels(6), ".gz")
    assert find_pairs(folder) == [IdxPair(images, f"{folder}train-labels-idx1-ubyte", "train")]
    write_idx(pixels(6, 4, 3, seed=1), copy, overwrite=True)
    message = f"{images} and {copy}: expected copies of one file, .*, got files that differ"
    with pytest.raises(SourceError, match=message):
        find_pairs(folder)
    assert find_labels(images) == f"{folder}train-labels-idx1-ubyte"
    write_idx(pixels(6, seed=1), f"{folder}train-labels-idx1-ubyte.gz", overwrite=True)
    with pytest.raises(SourceError, match="name the image and the label file yourself"):
        find_labels(images)


@pytest.mark.parametrize(
    ("first", "second", "split"),
    [
        ("t10k-images-idx3-ubyte", "test-images-idx3-ubyte", "test"),
        ("emnist-digits-train-images-idx3-ubyte", "emnist-mnist-train-images-idx3-ubyte", "train"),
    ],
)
def test_two_data_sets_in_one_folder_raise_an_error_that_names_both(
    tmp_path: Path, first: str, second: str, split: str
) -> None:
    put(tmp_path, second, first)
    with pytest.raises(SourceError, match="more than one data set") as caught:
        find_pairs(tmp_path)
    for part in (str(tmp_path), repr(first), repr(second), repr(split), "name the image files"):
        assert part in str(caught.value)


def test_a_folder_without_idx_images_raises_an_error_that_counts_its_files(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="got none among 0 files"):
        find_pairs(tmp_path)
    put(tmp_path, "train-labels-idx1-ubyte", "photo.png")
    with pytest.raises(SourceError, match="got none among 2 files") as caught:
        find_pairs(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("folder", ["none", "file", "file/deeper"])
def test_a_path_that_is_no_folder_is_not_found(tmp_path: Path, folder: str) -> None:
    put(tmp_path, "file")
    with pytest.raises(SourceNotFoundError, match=f"{folder}/: there is no such folder"):
        find_pairs(tmp_path / folder)


def test_a_missing_folder_behind_a_url_is_not_found(memory_url: str, serve: Serve) -> None:
    with pytest.raises(SourceNotFoundError, match=f"{memory_url}/: there is no such folder"):
        find_pairs(memory_url)
    url = serve("/elsewhere", b"x").replace("elsewhere", "none")
    with pytest.raises(SourceNotFoundError, match="none/: there is no such folder"):
        find_pairs(url)


def test_a_folder_that_may_not_be_listed_raises_an_error_with_advice(
    httpserver: HTTPServer,
) -> None:
    httpserver.expect_request("/box/").respond_with_data("no", status=403)
    with pytest.raises(SourceError, match=r"box/: .*cannot be listed.*name the image files"):
        find_pairs(httpserver.url_for("/box/"))


def test_an_unknown_file_system_raises_an_error_that_names_the_url() -> None:
    for search in (find_labels, find_pairs):
        with pytest.raises(SourceNotFoundError, match=r"foo://box/train-images.*: Protocol not"):
            search("foo://box/train-images-idx3-ubyte")


def test_pairs_are_found_behind_a_url(memory_url: str) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("t10k-images-idx3-ubyte", "train-images.idx3-ubyte", "train-labels.idx1-ubyte"):
        memory.pipe_file(f"/box/{name}", b"x")
    for folder in (memory_url, f"{memory_url}/"):
        assert find_pairs(folder) == [
            IdxPair(
                "memory://box/train-images.idx3-ubyte",
                "memory://box/train-labels.idx1-ubyte",
                "train",
            ),
            IdxPair("memory://box/t10k-images-idx3-ubyte", None, "test"),
        ]


def test_pairs_are_found_on_the_folder_page_of_a_web_server(httpserver: HTTPServer) -> None:
    page = "".join(
        f'<a href="{name}">{name}</a>' for name in ("train-images-idx3-ubyte.gz", "notes.txt")
    )
    httpserver.expect_request("/box/").respond_with_data(page, content_type="text/html")
    url = httpserver.url_for("/box/")
    assert find_pairs(url) == [IdxPair(f"{url}train-images-idx3-ubyte.gz", None, "train")]


def test_folders_are_told_from_files(
    tmp_path: Path, memory_url: str, httpserver: HTTPServer
) -> None:
    put(tmp_path, "file")
    fsspec.filesystem("memory").pipe_file("/box/file", b"x")
    httpserver.expect_request("/box/page").respond_with_data(
        "<a href='/box/page/x'>x</a>", content_type="text/html"
    )
    url = httpserver.url_for("/box/page")
    assert [is_folder(place) for place in (tmp_path, memory_url, f"{memory_url}/", f"{url}/")] == [
        True
    ] * 4
    assert [is_folder(place) for place in (tmp_path / "file", f"{memory_url}/file", url)] == [
        False
    ] * 3


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "Train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "TRAIN-labels-idx1-ubyte.gz"),
        ("train-images-idx3-ubyte", "train-images-idx3-float"),
        ("train-images-idx3-ubyte", "train-images-idx4-ubyte.gz"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "train-labels-idx2-int"),
    ],
)
def test_of_two_data_sets_whose_names_fold_together_none_is_ignored(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    put(tmp_path, *names)
    with pytest.raises(SourceError, match=r"more than one data set: '.*' and '.*'"):
        find_pairs(tmp_path)


def test_labels_of_another_spelling_are_not_joined_to_images(tmp_path: Path) -> None:
    put(tmp_path, "train-images-idx3-ubyte", "Train-labels-idx1-ubyte")
    for find in (find_pairs, lambda folder: find_labels(folder / "train-images-idx3-ubyte")):
        with pytest.raises(SourceError, match="differ in the case of their letters"):
            find(tmp_path)


def test_copies_in_other_spellings_are_one_data_set(tmp_path: Path) -> None:
    put(tmp_path, "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte")
    assert names_of(find_pairs(tmp_path)) == [("train-images.idx3-ubyte", None, "train")]
