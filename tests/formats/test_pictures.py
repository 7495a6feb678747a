"""Folders of pictures as lazy Datasets; the pictures are made by Pillow."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mnist_zarr.errors import FileFormatError, OptionError, SourceError, SourceNotFoundError
from mnist_zarr.formats import picture_files, pictures
from mnist_zarr.formats.pictures import open_pictures
from mnist_zarr.reading.reader import open_store
from mnist_zarr.reading.verification import verify
from mnist_zarr.writing import passes
from mnist_zarr.writing.writer import write_zarr
from tests.support.pictures import COLS, ROWS, folder_of, noise, save

RGB, RGBA = (ROWS, COLS, 3), (ROWS, COLS, 4)


def cut(path: Path, n_bytes: int = 40) -> None:
    """Cut off the end of a file."""
    path.write_bytes(path.read_bytes()[:-n_bytes])


def only(folder: Path, **options: Any) -> Any:
    """Return the pixels of the only picture of a folder."""
    (image,) = open_pictures(folder, **options).image.values
    return image


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif", "pgm", "webp"])
def test_gray_pictures_become_images_pixel_for_pixel(ending: str, tmp_path: Path) -> None:
    options = {"lossless": True} if ending == "webp" else {}
    first = save(tmp_path / "cat" / f"1.{ending}", noise(1), **options)
    second = save(tmp_path / "dog" / f"1.{ending}", noise(2), **options)
    ds = open_pictures(tmp_path, mode="L")
    assert ds.image.dims == ("sample", "row", "col")
    assert ds.image.dtype == np.uint8
    np.testing.assert_array_equal(ds.image.values, [first, second])
    assert ds.label.values.tolist() == [0, 1]
    assert ds.source_index.values.tolist() == [0, 1]


def test_colour_is_the_last_dimension_band(tmp_path: Path) -> None:
    pixels = save(tmp_path / "1.png", noise(shape=RGB))
    ds = open_pictures(tmp_path)
    assert dict(ds.image.sizes) == {"sample": 1, "row": ROWS, "col": COLS, "band": 3}
    np.testing.assert_array_equal(ds.image.values, [pixels])


def test_the_mode_is_the_first_that_holds_all_pictures(tmp_path: Path) -> None:
    gray, colour = save(tmp_path / "1.png"), save(tmp_path / "2.png", noise(shape=RGB))
    images = open_pictures(tmp_path).image.values
    np.testing.assert_array_equal(images, [np.dstack([gray] * 3), colour])
    alpha = save(tmp_path / "3.png", noise(shape=RGBA))
    images = open_pictures(tmp_path).image.values
    np.testing.assert_array_equal(images[2], alpha)
    assert (images[:2, :, :, 3] == 255).all()
    assert open_pictures(tmp_path, mode="L").image.shape == (3, ROWS, COLS)
    np.testing.assert_array_equal(
        open_pictures(tmp_path, mode="RGB").image[2], np.asarray(alpha)[:, :, :3]
    )


def test_palettes_with_and_without_transparency_are_colours(tmp_path: Path) -> None:
    colours = Image.fromarray(noise(shape=RGB)).quantize(16)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    colours.save(tmp_path / "a" / "1.png")
    np.testing.assert_array_equal(only(tmp_path / "a"), np.asarray(colours.convert("RGB")))
    colours.save(tmp_path / "b" / "1.png", transparency=bytes(range(16)))
    alpha = only(tmp_path / "b")
    assert alpha.shape == RGBA
    assert set(alpha[:, :, 3].ravel().tolist()) <= set(range(16))
    np.testing.assert_array_equal(only(tmp_path / "b", mode="RGB"), alpha[:, :, :3])


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    bits = save(tmp_path / "1.png", noise() > 127)
    np.testing.assert_array_equal(only(tmp_path), np.where(bits, 255, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_the_exif_orientation_is_applied(ending: str, orientation: int, tmp_path: Path) -> None:
    # Halves and a corner of one colour each, so that JPEG keeps them apart.
    pixels = np.zeros((32, 64), np.uint8)
    pixels[:, 32:], pixels[16:, :16] = 100, 200
    options = {"lossless": True} if ending == "webp" else {}
    colours = pixels if ending != "webp" else np.dstack([pixels] * 3)
    save(tmp_path / "a" / f"1.{ending}", colours, orientation=orientation, **options)
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: pixels[::-1].T,
        7: pixels[::-1, ::-1].T,
        8: pixels[:, ::-1].T,
    }[orientation]
    got = only(tmp_path, mode="L").astype(int)
    assert got.shape == turned.shape
    assert np.abs(got - turned).max() < 8


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (ROWS, COLS)).astype(np.uint16)
    save(tmp_path / "1.png", pixels)
    Image.frombytes("I;16B", (COLS, ROWS), pixels.astype(">u2").tobytes()).save(tmp_path / "2.tif")
    ds = open_pictures(tmp_path)
    assert ds.image.dtype == np.uint16
    np.testing.assert_array_equal(ds.image.values, [pixels, pixels])
    assert open_pictures(tmp_path, size=(4, 4)).image.values.shape == (2, 4, 4)
    for mode in ("L", "RGB"):
        with pytest.raises(
            FileFormatError, match=rf"1\.png: has more than the 8 bits of mode {mode}"
        ):
            open_pictures(tmp_path, mode=mode).image.load()


def test_floats_are_kept(tmp_path: Path) -> None:
    pixels = save(
        tmp_path / "1.tif", np.linspace(-1, 1, ROWS * COLS, dtype="f4").reshape(ROWS, COLS)
    )
    np.testing.assert_array_equal(only(tmp_path), pixels)


def test_types_that_differ_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    save(tmp_path / "2.png", noise().astype(np.uint16))
    words = r"the types of pictures differ: '1\.png' is of uint8, '2\.png' of uint16"
    with pytest.raises(SourceError, match=words):
        open_pictures(tmp_path)


def deep_rgb() -> bytes:
    """Return a PNG file with 16 bits for each of red, green and blue."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 256, 513, 65535))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_sixteen_bits_per_band_are_not_cut_to_eight_unasked(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(deep_rgb())
    words = r"1\.png: has 16 bits per band, of which Pillow keeps 8; accept that with `mode='RGB'`"
    with pytest.raises(FileFormatError, match=words):
        open_pictures(tmp_path)
    assert only(tmp_path, mode="RGB").tolist() == [[[1, 2, 255]]]


def test_sizes_that_differ_name_the_first_two_files_and_the_option(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png")
    save(tmp_path / "cat" / "2.png", orientation=6)
    save(tmp_path / "dog" / "1.png", noise(shape=(5, 5)))
    words = (
        "the sizes of pictures differ: 'cat/1.png' has 8 x 6 pixels, 'cat/2.png' has 6 x 8; resize "
        "all, such as with `size=(8, 6)`"
    )
    with pytest.raises(SourceError, match=re.escape(words)):
        open_pictures(tmp_path)


@pytest.mark.parametrize(("fit", "edge"), [("crop", 100), ("pad", 0)])
def test_resizing_crops_or_pads_and_never_squeezes(fit: Any, edge: int, tmp_path: Path) -> None:
    pixels = np.full((40, 120), 100, np.uint8)
    pixels[:, 40:80] = 200  # a square in the middle, twice as bright
    save(tmp_path / "1.png", pixels)
    image = only(tmp_path, size=(30, 30), fit=fit)
    assert image.shape == (30, 30)
    bright = image > 150
    if fit == "crop":
        assert bright.mean() > 0.9
    else:
        rows, cols = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        assert len(rows) == len(cols) == 10  # a square still
        assert (image[:9] == edge).all()
        assert image[15, 3] == 100


def test_the_size_is_width_and_height(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    assert dict(open_pictures(tmp_path, size=(5, 3)).sizes) == {"sample": 1, "row": 3, "col": 5}


def test_a_picture_of_the_size_asked_for_is_left_as_it_is(tmp_path: Path) -> None:
    pixels = save(tmp_path / "1.png", noise(shape=RGB))
    np.testing.assert_array_equal(only(tmp_path, size=(COLS, ROWS)), pixels)


def test_a_large_jpeg_resized_while_it_is_decoded_looks_like_one_resized_afterwards(
    tmp_path: Path,
) -> None:
    row, col = np.mgrid[:600, :800]
    pixels = np.dstack([row * 255 // 600, col * 255 // 800, 128 + 100 * np.sin(row * col / 9e3)])
    save(tmp_path / "1.jpg", pixels.astype(np.uint8), quality=95)
    with Image.open(tmp_path / "1.jpg") as picture:
        expected = np.asarray(ImageOps.fit(picture, (32, 32))).astype(int)
    assert np.abs(only(tmp_path, size=(32, 32)) - expected).mean() < 1


def test_all_damaged_pictures_are_named_when_pixels_are_read(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/4.png")
    for name in ("a/2.png", "b/4.png"):
        cut(tmp_path / name)
    ds = open_pictures(tmp_path)
    assert (ds.image[0].values == noise(0)).all()  # of those that are whole, samples can be read
    words = rf"{re.escape(str(tmp_path))}: 2 of 4 pictures cannot be read: a/2\.png: .+; b/4\.png: "
    with pytest.raises(FileFormatError, match=words):
        ds.image[1].load()


def test_a_picture_without_a_header_lets_all_be_checked_at_once(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"a/{number}.png" for number in range(5)))
    (tmp_path / "a" / "0.png").write_bytes(b"")
    (tmp_path / "a" / "1.png").write_bytes(b"404: Not Found")
    cut(tmp_path / "a" / "2.png")
    frames = [Image.fromarray(noise(seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a" / "3.png", save_all=True, append_images=frames[1:])
    words = (
        r"4 of 5 pictures cannot be read: a/0\.png: is not a picture, or of a format that Pillow "
        r"lacks; a/1\.png: is not a picture.*; a/2\.png: .*truncated.*; a/3\.png: has 3 frames"
    )
    with pytest.raises(FileFormatError, match=words):
        open_pictures(tmp_path)


@pytest.mark.parametrize("ending", ["gif", "tif", "webp"])
def test_several_frames_are_not_one_picture(ending: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(seed)) for seed in range(2)]
    frames[0].save(tmp_path / f"1.{ending}", save_all=True, append_images=frames[1:])
    with pytest.raises(FileFormatError, match="has 2 frames; expected one"):
        open_pictures(tmp_path)


def test_a_preview_behind_a_photo_does_not_count(tmp_path: Path) -> None:
    pixels = noise(shape=(16, 16))
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "1.jpg", format="MPO", save_all=True, append_images=[picture])
    assert only(tmp_path).shape[:2] == (16, 16)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "annexed")
    with pytest.raises(SourceError, match=r"1 of 2 pictures .*: 2\.png: .*no such file"):
        open_pictures(tmp_path)


def test_a_picture_that_changes_or_vanishes_meanwhile_is_an_error(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png", "2.png", "3.png")
    ds = open_pictures(tmp_path)
    save(tmp_path / "1.png", noise(7))
    os.utime(tmp_path / "1.png", ns=(1, 1))
    (tmp_path / "3.png").unlink()
    words = r"2 of 3 pictures cannot be read: 1\.png: was changed since .*; 3\.png: .*no such file"
    with pytest.raises(SourceError, match=words):
        ds.image.load()
    with pytest.raises(SourceError, match="was changed since"):
        ds.encoding["source_files"][0].sha256()


def test_one_hash_of_all_pictures_is_what_sha256sum_would_print(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "dog/1.png", "cat/b.png", "cat/a.png", "cat-2/x.png")
    names = ["cat-2/x.png", "cat/a.png", "cat/b.png", "dog/1.png"]
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(hashes, names, strict=True))
    expected = hashlib.sha256(lines.encode()).hexdigest()
    write_zarr(open_pictures(folder), tmp_path / "p.zarr")
    assert open_store(tmp_path / "p.zarr").attrs["source_sha256"] == [f"{expected}  photos"]
    if shutil.which("sha256sum"):
        command = "LC_ALL=C sha256sum */* | sha256sum"
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
        assert done.stdout.split()[0] == expected


def test_a_csv_file_of_labels_is_a_source_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "1.png", "2.png")
    table = "file,label\n1.png,dog\n2.png,cat\n"
    (folder / "labels.csv").write_bytes(table.encode())
    write_zarr(open_pictures(folder), tmp_path / "p.zarr")
    store = open_store(tmp_path / "p.zarr")
    assert store.label.values.tolist() == [1, 0]
    assert store.attrs["source"] == "photos, labels.csv"
    digest = hashlib.sha256(table.encode()).hexdigest()
    assert store.attrs["source_sha256"][1] == f"{digest}  labels.csv"


def test_the_identity_tells_versions_of_a_folder_apart(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png")
    before = pictures.PicturesSource(tmp_path).identity()
    assert pictures.PicturesSource(tmp_path).identity() == before
    save(tmp_path / "1.png", noise(7, (9, 9)))
    assert pictures.PicturesSource(tmp_path).identity() != before


@pytest.mark.parametrize("order", ["source", "label"])
def test_more_pictures_than_are_decoded_at_a_time(
    order: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "BATCH", 3)
    folder = folder_of(
        tmp_path / "p",
        *(
            f"{split}/{number % 3}/{number}.png"
            for number in range(10)
            for split in ("train", "test")
        ),
    )
    ds = open_pictures(folder)
    write_zarr(ds, tmp_path / "p.zarr", order=order, chunk_bytes=4 * ROWS * COLS)
    store = open_store(tmp_path / "p.zarr").sortby("source_index")
    np.testing.assert_array_equal(store.image.values, ds.image.values)
    np.testing.assert_array_equal(store.label.values, ds.label.values)


@pytest.mark.parametrize("order", ["source", "label", "shuffled"])
def test_each_picture_is_decoded_once_in_any_order(
    order: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "p", *(f"{number}.png" for number in range(12)))
    (folder / "labels.csv").write_text("".join(f"{n},class {n % 4}\n" for n in range(12)))
    decoded: list[int] = []

    def count(files: Any, at: int, *options: Any) -> Any:
        decoded.append(at)
        return picture_files.decode(files, at, *options)

    monkeypatch.setattr(pictures, "decode", count)
    monkeypatch.setattr(passes, "OPEN_OBJECTS_BYTES", 1)  # as if there were many classes
    write_zarr(open_pictures(folder), tmp_path / "p.zarr", order=order, chunk_bytes=2 * ROWS * COLS)
    assert sorted(decoded) == list(range(12))
    assert verify(tmp_path / "p.zarr").is_whole


def test_samples_are_taken_in_any_order_lazily_and_by_dask(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(f"{number}.png" for number in range(6)))
    whole = np.stack([noise(number) for number in range(6)])
    kinds: list[Any] = [None, {}]
    for chunks in kinds:
        image = open_pictures(folder, chunks=chunks).image
        np.testing.assert_array_equal(image[[4, 0, 4]].values, whole[[4, 0, 4]])
        np.testing.assert_array_equal(image[::-2, 2:4, 1].values, whole[::-2, 2:4, 1])
        assert image[0:0].values.shape == (0, ROWS, COLS)


def test_nothing_but_headers_is_read_before_values_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "1.png", noise(shape=(1000, 1000)))

    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(pictures, "decode", refuse)
    open_pictures(tmp_path)


def test_an_open_folder_travels_to_other_processes(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png")
    image = pickle.loads(pickle.dumps(open_pictures(tmp_path))).image
    np.testing.assert_array_equal(image.values, [noise(0)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "rgb"}, "`mode`: expected one of 'L', 'RGB', 'RGBA', got 'rgb'"),
        ({"fit": "squeeze"}, "`fit`: expected one of 'crop', 'pad', got 'squeeze'"),
        ({"size": 64}, "`size`: expected width and height in pixels, such as (64, 64), got 64"),
        ({"size": (64, 0)}, "`size`: expected width and height"),
        ({"size": (64, 64, 3)}, "`size`: expected width and height"),
        ({"size": "64"}, "`size`: expected width and height"),
        ({"labels": "s3://bucket/labels.csv"}, "expected a CSV file of this machine"),
    ],
)
def test_options_outside_their_range_are_refused(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(OptionError, match=re.escape(words)):
        open_pictures(tmp_path, **options)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="there is no such folder"):
        open_pictures(tmp_path / "none")
    save(tmp_path / "1.png")
    with pytest.raises(SourceError, match="expected a folder"):
        open_pictures(tmp_path / "1.png")
    with pytest.raises(OptionError, match=r"s3://bucket/photos: expected a folder of this machine"):
        open_pictures("s3://bucket/photos")
