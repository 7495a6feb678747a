"""The page in a real browser: pixels are compared with xarray's, requests are counted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

import mnist_zarr
from mnist_zarr.catalog.opening import open_dataset
from mnist_zarr.dataset.classes import class_attrs
from mnist_zarr.dataset.schema import make_dataset
from mnist_zarr.hosting.cors import cors_rule
from mnist_zarr.hosting.page import PAGE_FILE, make_page
from mnist_zarr.hosting.publication import publish
from mnist_zarr.stores.keys import PAGE, is_document
from mnist_zarr.stores.upload import Upload
from mnist_zarr.writing.writer import write_zarr
from tests.support.browser import Tab, running_browser
from tests.support.marks import needs_zip_urls
from tests.support.nginx import running_nginx
from tests.support.object_server import BUCKET, S3Server
from tests.support.web_site import WebSite, running_site

DS = open_dataset("mnist").isel(sample=slice(59_700, 60_300)).load()
SPLIT = DS.split.values.astype(object)
SOURCE = Path(__file__).parents[2] / "mnist_zarr" / "hosting" / "page_source"
LAYOUTS: dict[str, dict[str, Any]] = {
    "format 3": {},
    "format 3, gzip": {"codec": "gzip"},
    "format 3, shards": {"shard_bytes": 160_000},
    "format 2": {"zarr_format": 2},
    "format 2, gzip": {"zarr_format": 2, "codec": "gzip"},
}
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

# What the fixture `open_tab` returns: opens a path of the site, or a URL.
OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def big_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """A site with all of MNIST, in label order, and its page."""
    folder = tmp_path_factory.mktemp("site")
    mnist_zarr.build(folder / "mnist.zarr", order="label", level=1, page=True)
    with running_site(folder) as running:
        yield running


@pytest.fixture
def mnist(big_site: WebSite) -> WebSite:
    big_site.requests.clear()
    return big_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    """A site whose root has only the page, for the stores that a test writes beside it."""
    (tmp_path / PAGE).write_bytes(make_page())
    with running_site(tmp_path) as running:
        yield running


@pytest.fixture
def open_tab(browser: Any) -> Iterator[OpenTab]:
    """Open pages; at the end none may have complained of what the test does not expect."""
    tabs: list[Tab] = []

    def open_url(url: str, **options: Any) -> Tab:
        tabs.append(Tab(browser, **{"viewport": {"width": 1280, "height": 900}, **options}))
        return tabs[-1].open(url)

    yield open_url
    complaints = [complaint for tab in tabs for complaint in tab.complaints]
    for tab in tabs:
        tab.close()
    assert complaints == []


def ink(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return 8-bit values as they are shown on light paper."""
    return 255 - values


def write(site: WebSite, ds: xr.Dataset, name: str = "t.zarr", **options: Any) -> str:
    """Write a store into the site; return the URL of the page that shows it."""
    write_zarr(ds, site.root / name, **{"chunk_bytes": 40_000, "level": 1, **options})
    return f"{site.address}/#store={name}"


def check_sheet(tab: Tab, expected: npt.NDArray[Any]) -> None:
    """Check that the first band shows these grey images, one after another."""
    cells = tab.cells(*expected.shape[1:])
    shown = cells.reshape(-1, *cells.shape[2:])[: len(expected)]
    assert (shown[..., 3] == 255).all()
    for channel in range(3):
        np.testing.assert_array_equal(shown[..., channel], expected[: len(shown)])


def wait_until_painted(tab: Tab) -> None:
    """Wait until no image of the first band is still to come."""
    tab.wait_for(lambda: not (tab.canvas("#sheet canvas")[..., 3] == 22).any())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["source", "label"])
def test_the_sheet_shows_the_pixels_of_a_class(
    site: WebSite, open_tab: OpenTab, layout: str, order: Any
) -> None:
    tab = open_tab(write(site, DS, order=order, **LAYOUTS[layout]) + "&class=7")
    wait_until_painted(tab)
    sevens = xr.open_zarr(site.root / "t.zarr", chunks=None).load().sel(label=7)
    assert tab.text("#heading") == f"Class 7 {len(sevens.label)} samples"
    check_sheet(tab, ink(sevens.image.values))


def test_a_zip_file_is_read_in_ranges_that_are_merged(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(write(site, DS, "t.zarr.zip", chunk_bytes=8_000) + "&class=3")
    wait_until_painted(tab)
    check_sheet(tab, ink(DS.sel(label=3).image.values))
    ranges = [asked for _, path, asked in site.requests if path == "/t.zarr.zip"]
    assert all(ranges)
    assert len(ranges) < 12 < DS.sizes["sample"] // 10


def test_a_server_without_ranges_sends_a_zip_file_once(site: WebSite, open_tab: OpenTab) -> None:
    site.has_ranges = False
    tab = open_tab(write(site, DS, "t.zarr.zip"))
    wait_until_painted(tab)
    assert len(site.asked(".zip")) == 1


def test_a_store_that_is_being_written_is_called_so(site: WebSite, open_tab: OpenTab) -> None:
    upload = Upload(LocalStore(site.root / "t.zarr"), "t.zarr")
    upload.begin(overwrite=False)
    try:
        tab = open_tab(f"{site.address}/#store=t.zarr")
        assert "the store is being written; come back later" in tab.messages()[0]
    finally:
        upload.give_up()


def test_a_zip_file_of_this_machine_is_chosen(site: WebSite, open_tab: OpenTab) -> None:
    write(site, DS, "t.zarr.zip")
    tab = open_tab(f"{site.address}/#class=7")
    assert "there is no Zarr store here" in tab.messages()[0]
    tab.page.set_input_files("#open-file", site.root / "t.zarr.zip")
    tab.wait_for(tab.is_drawn)
    site.requests.clear()
    tab.click_class("7")
    tab.wait_for(lambda: tab.text("#heading").startswith("Class 7"))
    wait_until_painted(tab)
    check_sheet(tab, ink(DS.sel(label=7).image.values))
    assert site.requests == []


def test_only_the_chunks_of_the_class_are_fetched(mnist: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(f"{mnist.address}/mnist.zarr/#class=7")
    wait_until_painted(tab)
    ds = xr.open_zarr(mnist.root / "mnist.zarr", chunks=None)
    sevens = np.flatnonzero(ds.label.values == 7) // ds.image.encoding["chunks"][0]
    fetched = {int(path.split("/")[-3]) for path in mnist.asked("/image/c/")}
    assert min(fetched) == sevens[0]
    assert max(fetched) <= sevens[-1]
    assert len(fetched) <= 4
    others = {path for path in mnist.asked("/mnist.zarr/") if "/image/" not in path}
    assert {path.removeprefix("/mnist.zarr/") for path in others} == {
        "",
        "zarr.json",
        "label/c/0",
        "split/c/0",
    }
    assert tab.text("#traffic").startswith(f"{len(mnist.requests) - 1} requests · ")


def test_ranges_of_a_shard_are_merged(site: WebSite, open_tab: OpenTab) -> None:
    url = write(site, DS, order="label", chunk_bytes=8_000, shard_bytes=480_000)
    tab = open_tab(f"{url}&class=7")
    wait_until_painted(tab)
    ranges = [asked for _, path, asked in site.requests if "/image/" in path]
    assert len(ranges) <= 4
    assert all(ranges)


def test_the_first_digits_are_there_within_a_second(mnist: WebSite, open_tab: OpenTab) -> None:
    seconds: list[float] = []
    while len(seconds) < 8 and (not seconds or min(seconds) >= 1):
        tab = open_tab(f"{mnist.address}/mnist.zarr/#class=7")
        seconds.append(tab.seconds_to_first_samples())
    assert min(seconds) < 1


def test_further_samples_are_drawn_as_one_scrolls(mnist: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(f"{mnist.address}/mnist.zarr/#class=7")
    wait_until_painted(tab)
    n_before = len(mnist.asked("/image/"))
    tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    tab.wait_for(lambda: len(mnist.asked("/image/")) > n_before)
    tab.wait_for(lambda: tab.page.locator("#sheet .band").count() > 1)
    assert tab.page.locator("#sheet .band").count() < 12
    wait_until_painted(tab)


def test_class_split_and_sample_stand_in_the_address(mnist: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(f"{mnist.address}/mnist.zarr/")
    tab.click_class("3")
    tab.click_class("7", modifiers=["Shift"])
    tab.page.get_by_role("button", name="test, 10,000 samples").click()
    assert tab.page.url.endswith("#class=3&class=7&split=test")
    assert tab.text("#heading") == "3, 7 2,038 samples, test"
    ds = xr.open_zarr(mnist.root / "mnist.zarr", chunks=None).load()
    first = int(np.flatnonzero((ds.label.values == 3) & (ds.split.values == "test"))[0])
    wait_until_painted(tab)
    cell = tab.page.locator("#sheet canvas").first
    cell.click(position={"x": 10, "y": 10})
    tab.wait_for(lambda: tab.page.url.endswith(f"&sample={first}"))
    again = open_tab(tab.page.url)
    assert again.text("#heading") == tab.text("#heading")
    again.wait_for(lambda: str(ds.source_index.values[first]) in again.text("#coordinates"))
    assert again.text("#sample-title") == f"Sample {first:,}"
    expected = ink(ds.image.values[first])
    np.testing.assert_array_equal(again.canvas("#sample-canvas")[..., 0], expected)
    again.page.keyboard.press("Escape")
    again.wait_for(lambda: "sample=" not in again.page.url)
    again.page.go_back()
    again.wait_for(lambda: again.page.is_visible("#sample"))


def test_the_counts_are_those_of_the_coordinates(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(write(site, DS))
    for value, n_samples in zip(*np.unique(DS.label.values, return_counts=True), strict=True):
        n_train = int(((DS.label.values == value) & (SPLIT == "train")).sum())
        tile = tab.page.locator(f'[data-class="{value}"]')
        expected = f"Class {value}, train {n_train}, test {n_samples - n_train}"
        assert tile.get_attribute("aria-label") == expected
        assert str(n_samples) in tile.inner_text()


def shown_sample(tab: Tab, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    tab.wait_for(lambda: tab.canvas("#sample-canvas")[..., 3].all())
    pixels = tab.canvas("#sample-canvas")
    assert pixels.shape[:2] == shape
    return pixels[..., :3]


def random_images(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_rescaled_and_float_stores_look_like_their_bytes(site: WebSite, open_tab: OpenTab) -> None:
    ds = DS.isel(sample=slice(40))
    expected = ink(ds.image.values[5])
    packed = open_tab(write(site, ds, "packed.zarr", rescale=(-1, 1)) + "&sample=5")
    np.testing.assert_array_equal(shown_sample(packed, (28, 28))[..., 0], expected)
    row, column = np.argwhere(ds.image.values[5] > 100)[0]
    box = packed.page.locator("#sample-canvas").bounding_box()
    size = box["width"] / 28
    packed.page.mouse.move(box["x"] + size * (column + 0.5), box["y"] + size * (row + 0.5))
    opened = xr.open_zarr(site.root / "packed.zarr", chunks=None).image.values[5, row, column]
    found = re.fullmatch(rf"row {row}, column {column}: (\S+)", packed.text("#pixel"))
    assert found is not None
    assert float(found[1]) == pytest.approx(opened, rel=1e-14)
    floats = open_tab(write(site, mnist_zarr.rescale(ds), "float.zarr") + "&sample=5")
    np.testing.assert_array_equal(shown_sample(floats, (28, 28))[..., 0], expected)
    assert "float32" in floats.text("#facts")


def test_floats_that_no_range_is_stated_for_and_missing_values(
    site: WebSite, open_tab: OpenTab
) -> None:
    images = np.linspace(-3, 5, 6 * 4 * 5).reshape(6, 4, 5)
    images[2, 1, 1] = np.nan
    ds = make_dataset(images)
    ds.image.attrs["valid_range"] = [0.0, 1.0]  # is not true
    tab = open_tab(write(site, ds) + "&sample=2")
    expected = np.rint((images[2] + 3) * 255 / 8)
    expected[1, 1] = 0
    shown = shown_sample(tab, (4, 5))[..., 0].astype(float)
    np.testing.assert_allclose(255 - shown, expected, atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (300, 200), (12, 9, 3), (12, 9, 1)])
def test_images_of_other_sizes_and_in_colour(
    site: WebSite, open_tab: OpenTab, shape: tuple[int, ...]
) -> None:
    images = random_images(6, *shape)
    dims = ("sample", "row", "col", "channel")[: images.ndim]
    ds = xr.Dataset({"image": (dims, images)})
    tab = open_tab(write(site, ds) + "&sample=3")
    shown = shown_sample(tab, shape[:2])
    expected = images[3] if shape[-1] == 3 else ink(np.squeeze(images[3]).reshape(*shape[:2], 1))
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))


def test_a_store_without_labels_and_splits(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(write(site, make_dataset(DS.image.values)))
    wait_until_painted(tab)
    check_sheet(tab, ink(DS.image.values))
    assert tab.text("#heading") == "All images 600 samples"
    assert not tab.page.is_visible("#classes")
    assert not tab.page.is_visible("#splits")


def test_sixty_two_classes_with_names_and_further_coordinates(
    site: WebSite, open_tab: OpenTab
) -> None:
    names = [f"letter {index}" for index in range(62)]
    labels = np.repeat(np.arange(62, dtype=np.uint8), 3)
    ds = make_dataset(
        random_images(186, 4, 4), label=labels, label_attrs=class_attrs(range(62), names)
    )
    writers = np.array([f"writer {index // 5}" for index in range(186)], dtype=object)
    ds = ds.assign_coords(writer=("sample", writers), page_number=("sample", np.arange(186)))
    tab = open_tab(write(site, ds) + "&class=61&sample=184")
    assert tab.page.locator(".tile").count() == 62
    assert tab.text("#heading") == "letter 61 3 samples"
    tab.wait_for(lambda: "writer 36" in tab.text("#coordinates"))
    assert "61: letter 61" in tab.text("#coordinates")
    assert re.search(r"page number\s+184", tab.text("#coordinates"))


def test_a_mean_image_is_the_mean_of_all_samples(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(write(site, DS) + "&class=3&class=7&split=train")
    tab.page.get_by_role("button", name="Means").click()
    tab.wait_for(lambda: tab.page.locator(".mean canvas").count() == 2)
    train = DS.isel(sample=SPLIT == "train")
    means = np.stack([train.sel(label=label).image.values.mean(axis=0) for label in (3, 7)])
    tones = 255 * (means - means.min()) / (means.max() - means.min())
    for index, name in enumerate("37"):
        shown = tab.canvas(f'.mean canvas[aria-label="Mean image of {name}"]')
        np.testing.assert_allclose(255.0 - shown[..., 0], tones[index], atol=0.5001)


def test_mean_images_of_very_many_pixels_are_computed_only_if_wanted(
    site: WebSite, browser: Any
) -> None:
    zeros = np.broadcast_to(np.uint8(0), (300, 1000, 1000))
    url = write(site, make_dataset(zeros), chunk_bytes=30_000_000)
    tab = Tab(browser)
    tab.page.goto(f"{url}&view=means")
    tab.wait_for(lambda: tab.page.is_visible("#means button"))
    assert tab.text("#means").startswith("Mean images need every sample: 300\u00a0MB of pixels.")
    assert not site.asked("/image/")
    tab.page.get_by_role("button", name="Read them all").click()
    tab.wait_for(lambda: site.asked("/image/"))
    tab.close()


def test_a_store_without_samples(site: WebSite, browser: Any) -> None:
    empty = make_dataset(np.zeros((0, 4, 4), np.uint8), label=np.zeros(0, np.uint8))
    tab = Tab(browser)
    tab.page.goto(write(site, empty))
    tab.wait_for(lambda: tab.text("#heading") == "No samples")
    assert tab.messages() == tab.complaints == []
    tab.close()


@needs_zip_urls
@pytest.mark.parametrize("ending", ["", ".zip"])
@pytest.mark.parametrize("choice", ["", "&class=7", "&class=3&class=7&split=test", "&sample=17"])
def test_the_python_code_opens_what_is_shown(
    site: WebSite, open_tab: OpenTab, choice: str, ending: str
) -> None:
    url = write(site, DS, f"t.zarr{ending}") + choice
    tab = open_tab(url)
    code = tab.text("#snippet")
    names: dict[str, Any] = {}
    exec(code, names)
    if "sample" in choice:
        np.testing.assert_array_equal(names["image"].values, DS.image.values[17])
        return
    chosen = names.get("chosen", names["ds"])
    stated = re.search(r"([\d,]+) samples", tab.text("#heading"))
    assert stated is not None
    assert chosen.sizes["sample"] == int(stated[1].replace(",", ""))
    assert f"# {chosen.sizes['sample']} samples" in code or not choice


@pytest.mark.parametrize("address", ["&class=0", "&class=0&split=test", "&split=test"])
def test_the_code_keeps_the_dimension_of_a_single_sample(
    site: WebSite, open_tab: OpenTab, address: str
) -> None:
    ds = DS.isel(sample=np.flatnonzero(DS.label.values == 7)[:4])
    label = xr.Variable("sample", np.array([7, 0, 7, 7], "uint8"))
    split = xr.Variable("sample", np.array(["train", "test", "train", "train"]))
    tab = open_tab(write(site, ds.assign_coords(label=label, split=split)) + address)
    names: dict[str, Any] = {}
    exec(tab.text("#snippet"), names)
    assert names["chosen"].image.dims == ("sample", "row", "col")
    assert names["chosen"].label.values.tolist() == [0]


def test_samples_without_labels_are_a_class_of_their_own(site: WebSite, open_tab: OpenTab) -> None:
    labels = np.where(SPLIT == "train", DS.label.values.astype(np.int16), -1)
    label = xr.Variable("sample", labels, {"valid_min": 0})
    tab = open_tab(write(site, DS.assign_coords(label=label)))
    tile = tab.page.locator('[data-class="-1"]')
    n_test = int((SPLIT == "test").sum())
    assert tile.get_attribute("aria-label") == f"Class unlabelled, train 0, test {n_test}"


@pytest.mark.parametrize(("choice", "n_means"), [("", 10), ("&class=-1", 1)])
def test_samples_without_labels_are_in_no_row_of_means(
    site: WebSite, open_tab: OpenTab, choice: str, n_means: int
) -> None:
    labels = np.where(SPLIT == "train", DS.label.values.astype(np.int16), -1)
    label = xr.Variable("sample", labels, {"valid_min": 0})
    tab = open_tab(write(site, DS.assign_coords(label=label)) + choice)
    tab.page.get_by_role("button", name="Means").click()
    means = tab.page.locator(".mean canvas")
    tab.wait_for(lambda: means.count() == n_means)
    names = [mean.get_attribute("aria-label") for mean in means.all()]
    assert ("Mean image of unlabelled" in names) is bool(choice)


HOSTILE = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    '"><svg onload=window.pwned=1>',
    "javascript:window.pwned=1",
    "{{licenses}} ${window.pwned=1} </code></pre>",
]


def test_what_a_hostile_store_says_is_text(site: WebSite, open_tab: OpenTab) -> None:
    names = [text.replace(" ", "_") for text in HOSTILE]
    ds = make_dataset(
        random_images(5, 4, 4),
        label=np.arange(5),
        split=np.array(HOSTILE, dtype=object),
        label_attrs={
            **class_attrs(range(5), names),
            "long_name": HOSTILE[1],
        },
        attrs={
            "title": HOSTILE[0],
            "license": HOSTILE[3],
            "references": f"{HOSTILE[1]} https://example.org/{HOSTILE[2]}",
            HOSTILE[2]: {"nested": HOSTILE[0]},
        },
    )
    ds = ds.assign_coords({HOSTILE[3]: ("sample", np.array(HOSTILE, dtype=object))})
    tab = open_tab(write(site, ds) + "&class=0&sample=0")
    assert tab.text("#title") == HOSTILE[0]
    assert tab.page.title() == HOSTILE[0]
    tab.wait_for(lambda: HOSTILE[0] in tab.text("#coordinates"))
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("button", name="About the data").click()
    assert HOSTILE[2] in tab.text("#attributes")
    tab.page.wait_for_timeout(100)
    assert tab.page.evaluate("window.pwned") is None
    links = tab.page.locator("a[href]").evaluate_all("links => links.map(link => link.protocol)")
    assert set(links) <= {"http:", "https:"}
    assert tab.page.locator("img, svg, script").count() == 1  # the page's own script


@pytest.mark.parametrize("layout", ["format 3", "format 3, gzip", "format 3, shards", "format 2"])
@pytest.mark.parametrize("damage", ["changed", "missing", "cut off"])
def test_a_damaged_or_missing_chunk_is_a_message_and_no_picture(
    site: WebSite, open_tab: OpenTab, layout: str, damage: str
) -> None:
    url = write(site, DS.isel(sample=slice(100)), **LAYOUTS[layout])
    chunks = [path for path in (site.root / "t.zarr" / "image").rglob("*") if path.name[0] in "01"]
    chunk = min(path for path in chunks if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(data if damage == "changed" else data[:-30])
    tab = open_tab(url + "&class=" + str(DS.label.values[0]))
    tab.wait_for(tab.messages)
    assert tab.messages()[0].startswith(
        ("image, chunk 0/0/0: damaged", "image, chunk 0/0/0: missing")
    )
    pixels = tab.cells(28, 28)[0, 0]
    assert len(np.unique(pixels[..., 3])) == 2  # crossed out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_changed_bit_gives_a_wrong_picture(
    site: WebSite, open_tab: OpenTab, layout: str
) -> None:
    images = DS.image.values[:160]
    url = write(site, make_dataset(images), **{**LAYOUTS[layout], "chunk_bytes": 1_568})
    rng = np.random.default_rng(1)
    files = [path for path in (site.root / "t.zarr" / "image").rglob("*") if path.is_file()]
    chunks = [path for path in files if not is_document(path.name)]
    for path in chunks:
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
    tab = open_tab(url)
    wait_until_painted(tab)
    cells = tab.cells(28, 28).reshape(-1, 28, 28, 4)
    is_crossed = (cells[..., 3] == 40).any(axis=(1, 2))[: len(images)]
    for cell, image in zip(cells[:160][~is_crossed], images[~is_crossed], strict=True):
        np.testing.assert_array_equal(cell[..., 0], ink(image))
    # Gzip does not check all of its header.
    assert is_crossed.sum() > (1 if "gzip" in layout else 0.9 * 2) * len(chunks)
    assert tab.messages()


def test_a_changed_index_of_a_shard_is_noticed(site: WebSite, open_tab: OpenTab) -> None:
    url = write(site, DS.isel(sample=slice(100)), shard_bytes=160_000, order="label")
    shard = site.root / "t.zarr" / "image" / "c" / "0" / "0" / "0"
    data = shard.read_bytes()
    # The second chunk in the place of the first: each is whole, but has other samples.
    array = zarr.open_array(site.root / "t.zarr" / "image")
    assert array.shards is not None
    index = len(data) - 4 - 16 * (array.shards[0] // array.chunks[0])
    swapped = data[:index] + data[index + 16 : index + 32] + data[index : index + 16]
    shard.write_bytes(swapped + data[index + 32 :])
    tab = open_tab(url)
    tab.wait_for(tab.messages)
    assert "the checksum does not match" in tab.messages()[0]


def test_a_store_that_is_replaced_is_noticed(
    site: WebSite, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = open_tab(write(site, DS))
    shutil.rmtree(site.root / "t.zarr")
    write(site, DS.isel(sample=slice(50)))
    tab.page.evaluate("performance.now = () => 1e9")  # some seconds later
    tab.click_class("7")
    expected = "Another store has taken the place of this one. Reload the page."
    tab.wait_for(lambda: expected in tab.messages())


def test_a_chunk_that_may_be_missing_holds_the_fill_value(site: WebSite, open_tab: OpenTab) -> None:
    images = DS.image.values[:30].copy()
    images[10:20] = 0
    write(site, make_dataset(images), "ours.zarr", chunk_bytes=7_840)
    (site.root / "ours.zarr" / "image" / "c" / "1" / "0" / "0").unlink()
    # Other programs do not write what is equal to the fill value.
    group = zarr.create_group(site.root / "foreign.zarr")
    array = group.create_array(
        "image",
        data=images,
        chunks=(10, 28, 28),
        compressors=zarr.codecs.GzipCodec(),
        dimension_names=("sample", "row", "col"),
    )
    assert not (site.root / "foreign.zarr" / array.path / "c" / "1").exists()
    for name in ("ours.zarr", "foreign.zarr"):
        tab = open_tab(f"{site.address}/#store={name}")
        wait_until_painted(tab)
        check_sheet(tab, ink(images))
        assert tab.messages() == []


def test_a_codec_that_is_left_out_is_named(site: WebSite, open_tab: OpenTab) -> None:
    group = zarr.create_group(site.root / "t.zarr")
    array = group.create_array(
        "image",
        data=random_images(4, 5, 5),
        compressors=zarr.codecs.BloscCodec(),
        dimension_names=("sample", "row", "col"),
    )
    tab = open_tab(f"{site.address}/#store=t.zarr")
    assert array.shape == (4, 5, 5)
    assert "compressed with blosc, which this page cannot decode; xarray can" in (
        " ".join(tab.wait_for(tab.messages))
    )


def test_the_keyboard_is_enough(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(write(site, DS))
    keyboard = tab.page.keyboard
    keyboard.press("?")
    tab.wait_for(lambda: tab.page.is_visible("#help"))
    keyboard.press("Escape")
    keyboard.press("7")
    tab.wait_for(lambda: tab.text("#heading").startswith("Class 7"))
    keyboard.press("s")
    tab.wait_for(lambda: tab.page.url.endswith("&class=7&split=train"))
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        keyboard.press(key)
    sevens = np.flatnonzero((DS.label.values == 7) & (SPLIT == "train"))
    cursor = tab.page.locator("#cursor")
    assert cursor.get_attribute("aria-label") == f"sample {sevens[1]}, class 7, train"
    keyboard.press("Enter")
    tab.wait_for(lambda: tab.page.is_visible("#sample"))
    keyboard.press("ArrowRight")
    tab.wait_for(lambda: tab.text("#sample-title") == f"Sample {sevens[2]}")
    keyboard.press("Escape")
    keyboard.press("m")
    tab.wait_for(lambda: tab.page.is_visible(".mean"))
    keyboard.press("a")
    tab.wait_for(lambda: tab.text("#heading").startswith("All classes"))


def test_screen_readers_are_told_what_everything_is(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(write(site, DS) + "&class=7&sample=15")
    assert tab.page.get_by_role("img", name="The image of sample 15").is_visible()
    tab.page.keyboard.press("Escape")
    for role, name in [
        ("group", "Classes"),
        ("group", "Split"),
        ("toolbar", "What is shown"),
        ("grid", "Class 7"),
        ("heading", "t.zarr"),
    ]:
        assert tab.page.get_by_role(role, name=name).count() == 1
    script = "buttons => buttons.filter(b => !(b.innerText.trim() || b.ariaLabel)).length"
    assert tab.page.locator("button").evaluate_all(script) == 0
    assert tab.page.get_by_role("button", name="Class 7", pressed=True).count() == 1


def test_dark_paper_and_inverted_tones(site: WebSite, open_tab: OpenTab) -> None:
    url = write(site, DS) + "&class=7"
    sevens = DS.sel(label=7).image.values
    dark = open_tab(url, color_scheme="dark")
    wait_until_painted(dark)
    check_sheet(dark, sevens)
    dark.page.keyboard.press("i")
    dark.wait_for(lambda: dark.page.url.endswith("&invert=1"))
    wait_until_painted(dark)
    check_sheet(dark, ink(sevens))


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 3])
def test_pixels_are_whole_pixels_of_the_screen_and_a_phone_is_wide_enough(
    site: WebSite, open_tab: OpenTab, ratio: float
) -> None:
    viewport = {"width": 390, "height": 800}
    tab = open_tab(write(site, DS), viewport=viewport, device_scale_factor=ratio)
    canvas = tab.page.locator("#sheet canvas").first
    width = canvas.evaluate("canvas => canvas.width")
    enlargement = canvas.bounding_box()["width"] * ratio / width
    assert enlargement == pytest.approx(round(enlargement), abs=1e-3)
    assert canvas.evaluate("canvas => getComputedStyle(canvas).imageRendering") == "pixelated"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("name", "options"), [("t.zarr", {"shard_bytes": 160_000}), ("t.zarr.zip", {})]
)
def test_a_store_elsewhere_needs_the_rule_that_publish_prints(
    site: WebSite,
    open_tab: OpenTab,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    options: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    with running_site(folder) as elsewhere:
        write(elsewhere, DS, name, **options)
        url = f"{site.address}/#store={elsewhere.address}/{name}"
        elsewhere.headers = {}
        closed = open_tab(url)
        assert "answers, but does not let pages of" in closed.messages()[0]
        assert "Access-Control-Allow-Origin: *" in closed.messages()[0]
        closed.complaints.clear()
        rule = cors_rule("https://example.org/t.zarr").splitlines()
        elsewhere.headers = dict(line.split(": ", 1) for line in rule)
        tab = open_tab(url)
        wait_until_painted(tab)
        assert tab.messages() == []


def test_a_server_that_cannot_be_reached_is_named(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab(f"{site.address}/#store=http://127.0.0.1:9/t.zarr")
    assert "127.0.0.1:9 cannot be reached" in tab.messages()[0]
    tab.complaints.clear()


def test_a_web_page_in_the_place_of_metadata_is_named(site: WebSite, open_tab: OpenTab) -> None:
    (site.root / "t.zarr").mkdir()
    (site.root / "t.zarr" / "zarr.json").write_text("<!doctype html><p>Welcome")
    tab = open_tab(f"{site.address}/#store=t.zarr")
    assert "zarr.json is a web page, not metadata" in tab.messages()[0]
    assert tab.text("#title") == "The store cannot be opened"


def test_a_page_on_disk_says_how_to_look_at_the_store(site: WebSite, open_tab: OpenTab) -> None:
    tab = open_tab((site.root / PAGE).as_uri())
    assert "Run “mnist-zarr view”" in tab.messages()[0]
    tab.complaints.clear()


def test_the_page_over_nginx(open_tab: OpenTab, tmp_path: Path) -> None:
    with running_nginx(tmp_path) as nginx:
        write_zarr(DS, nginx.root / "a.zarr", chunk_bytes=40_000, shard_bytes=160_000)
        write_zarr(DS, nginx.root / "b.zarr.zip", chunk_bytes=40_000)
        (nginx.root / "a.zarr" / PAGE).write_bytes(make_page())
        for store in ("", "#store=../b.zarr.zip"):
            tab = open_tab(f"{nginx.address}/a.zarr/{PAGE}{store}")
            tab.click_class("7")
            tab.wait_for(lambda tab=tab: tab.text("#heading").startswith("Class 7"))
            wait_until_painted(tab)
            check_sheet(tab, ink(DS.sel(label=7).image.values))


def test_a_published_store_shows_itself(s3: S3Server, open_tab: OpenTab, tmp_path: Path) -> None:
    write_zarr(DS, tmp_path / "t.zarr", chunk_bytes=40_000)
    published = publish(tmp_path / "t.zarr", f"s3://{BUCKET}/t.zarr", storage_options=s3.options)
    tab = open_tab(f"{s3.address}/{BUCKET}/t.zarr/{PAGE}")
    tab.click_class("7")
    tab.wait_for(lambda: tab.text("#heading").startswith("Class 7"))
    wait_until_painted(tab)
    check_sheet(tab, ink(DS.sel(label=7).image.values))
    tab.page.get_by_role("button", name="About the data").click()
    tab.wait_for(lambda: f"{len(published.objects) - 2} objects" in tab.text("#attributes"))


def test_the_page_fetches_nothing_but_the_store(mnist: WebSite, open_tab: OpenTab) -> None:
    asked: list[str] = []
    tab = open_tab(f"{mnist.address}/mnist.zarr/")
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open(f"{mnist.address}/mnist.zarr/")
    assert len(asked) > 4
    assert {url for url in asked if not url.startswith(f"{mnist.address}/mnist.zarr/")} <= {
        url for url in asked if url.startswith("data:")
    }


def test_the_bundle_is_what_the_sources_give(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path / "page_source"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=180
    )
    if done.returncode:
        pytest.skip(f"npm cannot install what the page is built with: {done.stderr[-200:]}")
    subprocess.run(["npm", "run", "build"], cwd=folder, capture_output=True, check=True)
    assert (tmp_path / "page.html").read_bytes() == PAGE_FILE.read_bytes()


def test_the_bundle_is_small_and_has_the_licences_of_what_it_contains() -> None:
    page = PAGE_FILE.read_text(encoding="utf-8")
    assert len(page.encode()) < 350_000
    bundled = json.loads((SOURCE / "package.json").read_text())["devDependencies"]
    assert {"zarrita", "numcodecs"} <= bundled.keys()
    for text in ("Copyright (c) 2020 Trevor Manz", "Meta Platforms", "Emscripten authors"):
        assert text in page
