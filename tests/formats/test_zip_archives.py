"""Zip archives as Kaggle, GitHub and Macs make them, and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mnist_zarr.builder import build
from mnist_zarr.errors import FileFormatError, MnistZarrError, OptionError, SourceError
from mnist_zarr.files.folders import ZipFiles
from mnist_zarr.files.sources import open_bytes
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.pictures import open_pictures
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from tests.support.archives import npy_bytes
from tests.support.files import idx_bytes
from tests.support.idx_pairs import pixels
from tests.support.pictures import noise

if TYPE_CHECKING:
    from tests.conftest import Serve

IMAGES = {"train": pixels(6, 4, 3), "t10k": pixels(4, 4, 3, seed=1)}
LABELS = {"train": pixels(6), "t10k": pixels(4, seed=1)}


def put_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def idx_members(images: str, labels: str, *, compress: bool = False) -> dict[str, bytes]:
    """IDX files with these names, in which ``{}`` stands for the split."""
    members = {}
    for split in IMAGES:
        members[images.format(split)] = idx_bytes(IMAGES[split])
        members[labels.format(split)] = idx_bytes(LABELS[split])
    return {name: gzip.compress(data) if compress else data for name, data in members.items()}


def picture(seed: int, ending: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(seed)).save(file, ending)
    return file.getvalue()


RAW = ("{}-images-idx3-ubyte", "{}-labels-idx1-ubyte")
# As in "MNIST Dataset" of Kaggle: each file twice, once in a folder of its name.
KAGGLE = idx_members("{}-images.idx3-ubyte", "{}-labels.idx1-ubyte") | idx_members(
    "{0}-images-idx3-ubyte/{0}-images-idx3-ubyte", "{0}-labels-idx1-ubyte/{0}-labels-idx1-ubyte"
)
MAC = {
    "mnist/": b"",
    **idx_members("mnist/{}-images-idx3-ubyte", "mnist/{}-labels-idx1-ubyte"),
    "mnist/.DS_Store": b"Bud1",
    "__MACOSX/mnist/._train-images-idx3-ubyte": b"\0\5\x16\7",
    "__MACOSX/._mnist": b"\0\5\x16\7",
}
GITHUB = {
    "repository-main/README.md": b"# Data",
    **idx_members(
        "repository-main/data/{}-images-idx3-ubyte.gz",
        "repository-main/data/{}-labels-idx1-ubyte.gz",
        compress=True,
    ),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "members", [idx_members(*RAW), KAGGLE, MAC, GITHUB], ids=["raw", "Kaggle", "Mac", "GitHub"]
)
def test_idx_files_are_read_in_place(
    tmp_path: Path, members: dict[str, bytes], method: int
) -> None:
    archive = put_zip(tmp_path / "archive.zip", members, method)
    build(tmp_path / "t.zarr", archive)
    ds = open_store(tmp_path / "t.zarr", chunks=None)
    np.testing.assert_array_equal(ds.image, np.concatenate(list(IMAGES.values())))
    np.testing.assert_array_equal(ds.label, np.concatenate(list(LABELS.values())))
    assert ds.split.values.tolist() == ["train"] * 6 + ["test"] * 4
    assert [line.partition("  ")[2] for line in ds.attrs["source_sha256"]] == ["archive.zip"]
    assert ds.attrs["source"] == "archive.zip"
    assert verify(tmp_path / "t.zarr").is_whole
    assert sorted(os.listdir(tmp_path)) == ["archive.zip", "t.zarr"]


def test_an_archive_is_known_by_its_content_too(tmp_path: Path) -> None:
    put_zip(tmp_path / "archive", idx_members(*RAW))
    assert open_idx(tmp_path / "archive").sizes["sample"] == 10
    build(tmp_path / "t.zarr", tmp_path / "archive")


def test_an_archive_on_a_web_server_is_read_in_place(serve: Serve, tmp_path: Path) -> None:
    for name, members in (("m.zip", MAC), ("p.zip", {"cat/1.png": picture(1)})):
        data = put_zip(tmp_path / name, members).read_bytes()
        build(tmp_path / f"{name}.zarr", serve(f"/{name}", data), labels=False)
        assert open_store(tmp_path / f"{name}.zarr").attrs["source"] == name


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("inside", ["", "photos/", "a b/photos/"])
def test_pictures_are_read_in_place(tmp_path: Path, method: int, inside: str) -> None:
    members = {
        f"{inside}train/cat/1.png": picture(1),
        f"{inside}train/dog/2.png": picture(2),
        f"{inside}test/cat/3.png": picture(3),
        f"{inside}train/cat/Thumbs.db": b"x",
        f"__MACOSX/{inside}train/cat/._1.png": b"\0\5\x16\7",
    }
    archive = put_zip(tmp_path / "photos.zip", members, method)
    build(tmp_path / "t.zarr", archive, order="label")
    ds = open_store(tmp_path / "t.zarr", chunks=None).sortby("source_index")
    np.testing.assert_array_equal(ds.image, [noise(1), noise(2), noise(3)])
    assert ds.label.values.tolist() == [0, 1, 0]
    assert ds.label.attrs["flag_meanings"] == "cat dog"
    assert ds.split.values.tolist() == ["train", "train", "test"]
    assert [line.partition("  ")[2] for line in ds.attrs["source_sha256"]] == ["photos.zip"]


def test_pictures_in_an_archive_have_their_labels_from_its_csv_file(tmp_path: Path) -> None:
    table = b"file,label\n2.png,cat\n1.png,dog\n"
    members = {"d/1.png": picture(1), "d/2.png": picture(2), "d/labels.csv": table}
    ds = open_pictures(put_zip(tmp_path / "p.zip", members))
    assert ds.label.values.tolist() == [1, 0]
    assert ds.attrs["source"] == "p.zip"
    (tmp_path / "other.csv").write_bytes(b"1,a\n2,a\n")
    ds = open_pictures(tmp_path / "p.zip", labels=tmp_path / "other.csv")
    assert ds.label.values.tolist() == [0, 0]
    assert ds.attrs["source"] == "p.zip, other.csv"


def test_the_header_of_each_format_is_read_from_deflated_members(tmp_path: Path) -> None:
    members = {f"a/1.{ending}": picture(1, ending) for ending in ("png", "bmp", "tiff", "gif")}
    ds = open_pictures(put_zip(tmp_path / "p.zip", members), mode="L")
    np.testing.assert_array_equal(ds.image, [noise(1)] * 4)


def test_an_open_archive_travels_to_other_processes(tmp_path: Path) -> None:
    put_zip(tmp_path / "p.zip", {"cat/1.png": picture(1)})
    put_zip(tmp_path / "i.zip", MAC)
    for ds in (open_pictures(tmp_path / "p.zip"), open_idx(tmp_path / "i.zip")):
        again = pickle.loads(pickle.dumps(ds))
        np.testing.assert_array_equal(again.image, ds.image)


def test_arrays_in_an_archive_of_another_name_are_those_of_an_npz_archive(tmp_path: Path) -> None:
    members = {"X.npy": npy_bytes(IMAGES["train"]), "y.npy": npy_bytes(LABELS["train"])}
    build(tmp_path / "t.zarr", put_zip(tmp_path / "a.zip", members))
    assert open_store(tmp_path / "t.zarr").label.values.tolist() == LABELS["train"].tolist()


def test_an_archive_of_anything_else_says_what_it_holds(tmp_path: Path) -> None:
    put_zip(tmp_path / "a.zip", {f"{number}.bin": b"x" for number in range(12)})
    with pytest.raises(SourceError, match=r"got '0\.bin', .* and 2 more; extract it, and name"):
        build(tmp_path / "t.zarr", tmp_path / "a.zip")
    put_zip(tmp_path / "i.zip", MAC)
    with pytest.raises(OptionError, match=r"`size`: .*i\.zip is no folder or archive of pictures"):
        build(tmp_path / "t.zarr", tmp_path / "i.zip", size=(4, 4))
    with pytest.raises(SourceError, match="`labels`: an archive has its own"):
        build(tmp_path / "t.zarr", tmp_path / "i.zip", labels="x")


def test_options_of_pictures_are_for_those_archives_of_a_list_that_hold_some(
    tmp_path: Path,
) -> None:
    pictures = put_zip(tmp_path / "p.zip", {"3/1.png": picture(0), "7/1.png": picture(1)})
    idx, arrays = put_zip(tmp_path / "i.zip", MAC), tmp_path / "a.npz"
    np.savez(arrays, images=IMAGES["train"], labels=LABELS["train"])
    build(tmp_path / "t.zarr", [idx, pictures, arrays], size=(3, 4), mode="L")
    assert open_store(tmp_path / "t.zarr").image.shape == (10 + 2 + 6, 4, 3)
    with pytest.raises(OptionError, match="`size`: none of the sources holds pictures"):
        build(tmp_path / "u.zarr", [idx, arrays], size=(3, 4))


def test_two_data_sets_in_one_archive_are_not_mixed(tmp_path: Path) -> None:
    members = idx_members("a/{}-images-idx3-ubyte", "a/{}-labels-idx1-ubyte")
    members["b/train-images-idx3-ubyte"] = idx_bytes(pixels(6, 4, 3, seed=9))
    message = "more than one data set: 'a/train-images-idx3-ubyte' and 'b/train-images"
    with pytest.raises(SourceError, match=message):
        open_idx(put_zip(tmp_path / "a.zip", members))


@pytest.mark.parametrize("folder", ["a", "b"])
def test_raw_and_gzip_files_of_one_name_are_copies_or_refused(tmp_path: Path, folder: str) -> None:
    data = idx_bytes(IMAGES["train"])
    members = {"a/images-idx3-ubyte": data, f"{folder}/images-idx3-ubyte.gz": gzip.compress(data)}
    put_zip(tmp_path / "a.zip", members)
    np.testing.assert_array_equal(open_idx(tmp_path / "a.zip").image, IMAGES["train"])
    members["a/images-idx3-ubyte"] = idx_bytes(pixels(6, 4, 3, seed=9))
    put_zip(tmp_path / "a.zip", members)
    message = f"a/images-idx3-ubyte and .*: {folder}/images-idx3-ubyte.gz: expected copies"
    with pytest.raises(SourceError, match=message):
        open_idx(tmp_path / "a.zip")


def symlink(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted(data: bytes) -> bytes:
    """Set the flag of encryption of all members."""
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        parts = data.split(magic)
        data = magic.join([parts[0], *(_with_flag(part, offset - 4) for part in parts[1:])])
    return data


def _with_flag(part: bytes, offset: int) -> bytes:
    return part[:offset] + bytes([part[offset] | 1]) + part[offset + 1 :]


@pytest.mark.parametrize("name", ["../cat/1.png", "/etc/1.png", "a/../../1.png", "cat\\1.png"])
def test_members_that_lead_out_of_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    put_zip(tmp_path / "a.zip", {"cat/1.png": picture(1), name: picture(2)})
    with pytest.raises(FileFormatError, match=r"a\.zip: .* a path that leads out of the archive"):
        build(tmp_path / "t.zarr", tmp_path / "a.zip")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_parts_of_paths_that_lead_nowhere_hide_no_member(tmp_path: Path) -> None:
    put_zip(tmp_path / "a.zip", {"./cat/1.png": picture(1), "dog/.//2.png": picture(2)})
    build(tmp_path / "t.zarr", tmp_path / "a.zip")
    assert open_store(tmp_path / "t.zarr").label.attrs["flag_meanings"] == "cat dog"


@pytest.mark.parametrize("name", ["./cat/1.png", "cat/1\x1b.png"])
def test_members_of_one_path_or_of_none_are_refused(tmp_path: Path, name: str) -> None:
    put_zip(tmp_path / "a.zip", {"cat/1.png": picture(1), name: picture(2)})
    with pytest.raises(FileFormatError, match=r"a\.zip: 'cat/1.*'.*; make the archive anew"):
        build(tmp_path / "t.zarr", tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["cat/1.png", "train-images-idx3-ubyte"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(picture(1))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(symlink(name), os.fspath(tmp_path / "secret.png"))
    with pytest.raises(SourceError, match="is a symbolic link, which is not followed"):
        build(tmp_path / "t.zarr", tmp_path / "a.zip", labels=False)


@pytest.mark.parametrize("members", [{"cat/1.png": picture(1)}, idx_members(*RAW)])
def test_encrypted_members_are_named(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = put_zip(tmp_path / "a.zip", members)
    path.write_bytes(encrypted(path.read_bytes()))
    with pytest.raises(FileFormatError, match=r"(png|ubyte): encrypted or a patch; expected plain"):
        build(tmp_path / "t.zarr", path)
    assert not (tmp_path / "t.zarr").exists()


def test_only_members_that_are_used_must_be_sound(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in idx_members(*RAW).items():
            archive.writestr(name, data)
        archive.writestr("notes.txt", b"x" * 100, zipfile.ZIP_LZMA)
    assert open_idx(tmp_path / "a.zip").sizes["sample"] == 10


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    header = bytes.fromhex("00000803 7fffffff 0000001c 0000001c")
    huge = picture(1, "bmp") + bytes(300 << 20)
    put_zip(tmp_path / "p.zip", {"cat/1.bmp": huge})
    with pytest.raises(FileFormatError, match=r"1\.bmp: inflates to 314,\d+,\d+ bytes; expect"):
        open_pictures(tmp_path / "p.zip").image.load()
    put_zip(tmp_path / "i.zip", {"images-idx3-ubyte": header + bytes(8)})
    with pytest.raises(MnistZarrError, match=r"the data end here|cannot hold"):
        open_idx(tmp_path / "i.zip").image.load()


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_of_an_archive_is_an_error_of_ours_or_harmless(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    members: dict[str, Any] = idx_members(*RAW) if seed % 2 else {"cat/1.png": picture(1)}
    data = bytearray(put_zip(tmp_path / "a.zip", members).read_bytes())
    for at in rng.integers(0, len(data), 4):
        data[at] = rng.integers(256)
    if seed % 3 == 0:
        del data[rng.integers(len(data)) :]
    (tmp_path / "a.zip").write_bytes(data)
    try:
        build(tmp_path / "t.zarr", tmp_path / "a.zip", labels=False)
    except MnistZarrError:
        assert not (tmp_path / "t.zarr").exists()


def test_the_archive_is_one_version(tmp_path: Path) -> None:
    ds = open_pictures(put_zip(tmp_path / "p.zip", {"cat/1.png": picture(1)}))
    put_zip(tmp_path / "p.zip", {"cat/1.png": picture(2), "cat/2.png": picture(2)})
    with pytest.raises(SourceError, match="changed"):
        ds.image.load()


def test_the_folder_of_an_archive_is_a_view_of_it(tmp_path: Path) -> None:
    archive = ZipFiles(open_bytes(put_zip(tmp_path / "a.zip", {"d/x": b"1", "e": b"2"})))
    assert list(archive.below("d/").paths()) == ["x"]
    assert archive.below("d/").open("x").read(0, 9) == b"1"
    assert list(archive.paths()) == ["d/x", "e"]
