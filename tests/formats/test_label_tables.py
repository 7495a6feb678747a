"""CSV files with the labels of pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mnist_zarr.errors import SourceError
from mnist_zarr.files.sources import LocalSource
from mnist_zarr.formats.label_tables import read_label_table

PICTURES = ("a/1.png", "a/2.png", "b/3.jpg")
EXPECTED = [("x", None), ("y", None), ("x", None)]


def read(tmp_path: Path, text: str, encoding: str = "utf-8") -> list[tuple[str | None, str | None]]:
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    return read_label_table(LocalSource(tmp_path / "t.csv"), "photos", PICTURES)


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na/1.png,x\na/2.png,y\nb/3.jpg,x\n",
        "a/1.png,x\na/2.png,y\nb/3.jpg,x",
        "breed;id\r\nx;3\r\ny;2\r\nx;1\r\n",
        '\ufefflabel\tname\n"x"\t1.png\n\n"y"\t./a/2.png\nx\tb\\3.jpg\n',
        "id,class,width\n1,x,30\n2,y,20\n3,x,30\n",
    ],
)
def test_columns_are_told_by_what_is_in_them(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == EXPECTED


def test_a_column_of_splits_is_read_in_any_of_their_words(tmp_path: Path) -> None:
    text = "file,split,label\n1,Training,x\n2,holdout,y\n3,t10k,x\n"
    assert read(tmp_path, text) == [("x", "train"), ("y", "holdout"), ("x", "test")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a column with the file names of the pictures in photos, got none"),
        ("file,label\nq.png,x\n", "expected a column with the file names of the pictures"),
        ("1,x\n2,y\n4.png,x\n", "line 3: no picture '4.png' in photos, or more than one"),
        ("4.png,x\n1,x\n2,y\n3,x\n", "line 1: no picture '4.png' in photos, or more than one"),
        ("1,x\n2,y\n\n1,x\n", "line 4: 'a/1.png' is in line 1 already"),
        ("1,x\n2,\n3,y\n", "line 2: 'a/2.png' has no label"),
        ("1,x\n", "a line for each of 3 pictures in photos, got none for 2 of them, such as 'a/2"),
        ("1\n2\n3\n", "expected one column of labels beside that of file names, got none"),
        ("f,cat,dog\n1,0,1\n2,1,0\n3,0,1\n", "got 'cat', 'dog'; call it 'label' in the first"),
        ('1,"x', "expected a line for each of 3"),
    ],
)
def test_what_does_not_give_each_picture_one_label_is_refused(
    text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=re.escape(words)):
        read(tmp_path, text)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a CSV file in UTF-8"):
        read(tmp_path, "1,größe\n", encoding="latin-1")


def test_a_name_that_several_pictures_have_needs_its_folder(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\n1.png,x\nb/1.png,y\n")
    with pytest.raises(SourceError, match=r"line 2: no picture '1\.png' in photos, or more than"):
        read_label_table(LocalSource(tmp_path / "t.csv"), "photos", ("a/1.png", "b/1.png"))
