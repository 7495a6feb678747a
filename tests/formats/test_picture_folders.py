"""Which pictures are in a folder, and of which class and split each one is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from mnist_zarr.errors import SourceError
from mnist_zarr.files.folders import LocalFiles
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.formats.picture_folders import holds_pictures, list_pictures


def make(folder: Path, *names: str) -> LocalFiles:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return LocalFiles(os.fspath(folder))


def values(folder: LocalFiles) -> list[int]:
    labels = list_pictures(folder).labels
    assert labels is not None
    return [int(value) for value in labels]


def test_folders_are_classes_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = make(tmp_path, "dog/1.png", "cat/b.JPG", "cat/deep/er/a.jpeg", "Ankle boot/x.gif")
    found = list_pictures(folder)
    assert found.names == ("Ankle boot/x.gif", "cat/b.JPG", "cat/deep/er/a.jpeg", "dog/1.png")
    assert found.splits is None
    assert found.labels is not None
    assert found.label_attrs == {
        "flag_values": [0, 1, 2],
        "flag_meanings": "Ankle_boot cat dog",
    }
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert found.labels.dtype == np.uint8


def test_folders_that_are_numbers_are_labels(tmp_path: Path) -> None:
    folder = make(tmp_path, "0/a.png", "10/a.png", "9/a.png", "007/a.png")
    assert list_pictures(folder).names == ("0/a.png", "007/a.png", "9/a.png", "10/a.png")
    assert values(folder) == [0, 7, 9, 10]
    assert list_pictures(folder).label_attrs == {}


@pytest.mark.parametrize("names", [("1", "01"), ("1", "one"), ("²", "3"), ("-1", "1")])
def test_folders_of_which_some_are_no_number_of_their_own_are_names(
    names: tuple[str, str], tmp_path: Path
) -> None:
    assert values(make(tmp_path, *(f"{name}/a.png" for name in names))) == [0, 1]


def test_more_than_256_classes_have_a_larger_type(tmp_path: Path) -> None:
    folder = make(tmp_path, *(f"c{number:03}/a.png" for number in range(257)))
    assert list_pictures(folder).labels.dtype == np.uint16  # type: ignore[union-attr]


def test_folders_for_training_and_testing_are_splits_in_that_order(tmp_path: Path) -> None:
    folder = make(tmp_path, "Testing/b/1.png", "validation/a/2.png", "train/b/3.png")
    found = list_pictures(folder)
    assert found.names == ("train/b/3.png", "Testing/b/1.png", "validation/a/2.png")
    assert found.splits == ("train", "test", "val")
    assert values(folder) == [1, 1, 0]


def test_a_folder_named_train_beside_classes_is_a_class(tmp_path: Path) -> None:
    folder = make(tmp_path, "train/1.png", "plane/1.png")
    assert list_pictures(folder).splits is None
    assert values(folder) == [0, 1]


def test_pictures_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    assert list_pictures(make(tmp_path / "a", "2.png", "1.png")).labels is None
    found = list_pictures(make(tmp_path / "b", "test/2.png", "train/1.png"))
    assert (found.splits, found.labels) == (("train", "test"), None)


JUNK = (".DS_Store", "._1.png", "Thumbs.db", "desktop.ini", "README.txt", "labels.json")


def test_hidden_and_other_files_do_not_count(tmp_path: Path) -> None:
    junk = [f"cat/{name}" for name in JUNK]
    folder = make(tmp_path, "cat/1.png", *JUNK, *junk, ".git/a.png", "__MACOSX/b/1.png")
    make(tmp_path, "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg")
    assert list_pictures(folder).names == ("cat/1.png",)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("cat/1.png", "2.png"), "'2.png' is in no folder of a class, unlike 'cat/1.png'"),
        (("test/cat/1.png", "train/2.png"), "'train/2.png' is in no folder of a class"),
        (("train/cat/1.png", "more/dog/2.png"), "'train' is the folder of a split, but 'more/dog"),
        (("train/cat/1.png", "2.png"), "'train' is the folder of a split, but '2.png' is in none"),
        (("notes.txt",), "expected pictures, such as .png or .jpg files, got none"),
        (("a b/1.png", "a_b/1.png"), "names of classes: label: flag_meanings has 'a_b' more than"),
        (("1.png", "a.csv", "b.csv"), "which file has the labels: 'a.csv', 'b.csv'?"),
    ],
)
def test_what_is_ambiguous_is_refused(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=re.escape(words)):
        list_pictures(make(tmp_path, *names))


def test_a_picture_anywhere_makes_a_folder_one_of_pictures(tmp_path: Path) -> None:
    assert not holds_pictures(make(tmp_path, "a/b/notes.txt", "a/._c.png"))
    assert holds_pictures(make(tmp_path, "a/b/c.png"))


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "1.png")
    folder = make(tmp_path / "photos", "cat/1.png")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "dog" / "again").symlink_to(tmp_path / "photos")
    names = list_pictures(folder).names
    assert names == ("cat/1.png", "dog/1.png")


def test_a_csv_file_beside_the_pictures_has_their_labels_and_splits(tmp_path: Path) -> None:
    folder = make(tmp_path, "b.png", "a.png", "c.png")
    (tmp_path / "labels.csv").write_text(
        "file,label,split\nc.png,cat,train\na.png,dog,testing\nb.png,dog,train\n"
    )
    found = list_pictures(folder)
    assert found.names == ("b.png", "c.png", "a.png")
    assert found.splits == ("train", "train", "test")
    assert values(folder) == [1, 0, 1]
    assert found.table is not None
    assert found.table.name == os.fspath(tmp_path / "labels.csv")


def test_a_csv_file_that_is_named_counts_more_than_folders(tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", "x/a.png", "y/b.png")
    (tmp_path / "labels.csv").write_text("b.png,7\na.png,300\n")
    found = list_pictures(folder, LocalSource(tmp_path / "labels.csv"))
    assert found.names == ("x/a.png", "y/b.png")
    assert found.labels is not None
    assert found.labels.tolist() == [300, 7]


def test_pictures_of_a_test_part_without_class_folders_have_no_label(tmp_path: Path) -> None:
    folder = make(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/4.png", "test/3.png")
    found = list_pictures(folder)
    assert found.names == ("train/cat/1.png", "train/dog/2.png", "test/3.png", "test/4.png")
    assert values(folder) == [0, 1, -1, -1]
    assert found.label_attrs["valid_min"] == 0
    assert found.label_attrs["flag_meanings"] == "cat dog"
    make(tmp_path, "test/cat/5.png")
    with pytest.raises(SourceError, match=r"'test/3\.png' is in no folder of a class"):
        list_pictures(folder)


def test_pictures_of_a_test_part_may_all_lack_lines_of_the_csv_file(tmp_path: Path) -> None:
    folder = make(tmp_path, "train/1.png", "train/2.png", "test/3.png", "test/4.png")
    (tmp_path / "train.csv").write_text("id,label\n1,cat\n2,dog\n")
    table = LocalSource(tmp_path / "train.csv")
    labels = list_pictures(folder, table).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, -1, -1]
    (tmp_path / "train.csv").write_text("id,label\n1,cat\n2,dog\n3,cat\n")
    with pytest.raises(SourceError, match=r"got none for 1 of them, such as 'test/4\.png'"):
        list_pictures(folder, LocalSource(tmp_path / "train.csv"))
