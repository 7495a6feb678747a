"""The command line: what each command does, shows and refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from matplotlib.image import imread

import mnist_zarr
from mnist_zarr.catalog.download import fetch
from mnist_zarr.catalog.entries import CATALOG, ArchiveMember
from mnist_zarr.cli import _Stopwatch, main
from mnist_zarr.formats.idx import write_idx
from mnist_zarr.formats.idx_engine import open_idx
from mnist_zarr.formats.idx_export import write_idx_files
from mnist_zarr.stores.local import LocalFolder
from mnist_zarr.writing.writer import write_zarr
from tests.support.bucket_stores import URL
from tests.support.commands import run_command, shown_on_terminal
from tests.support.digits import digits, tutorial_scaling
from tests.support.object_server import S3Server
from tests.support.pictures import folder_of, noise, save
from tests.support.small_copy import SmallCopy, offline


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli") / "mnist.zarr"
    result = run_command("build", place, "--level", "1")
    assert (result.exit_code, result.output) == (0, "")
    return place


def test_build_shuffles_with_a_seed(tmp_path: Path) -> None:
    write_idx(np.zeros((40, 10, 10), np.uint8), tmp_path / "train-images-idx3-ubyte")
    source = ["--source", str(tmp_path / "train-images-idx3-ubyte")]
    options = ["--order", "shuffled", "--seed", "3"]
    result = run_command("build", tmp_path / "t.zarr", *source, *options, "--labels=none")
    assert (result.exit_code, result.output) == (0, "")
    expected = np.random.default_rng(3).permutation(40)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "t.zarr").source_index, expected)


def test_build_takes_every_option(tmp_path: Path) -> None:
    write_idx(np.zeros((40, 10, 10), np.uint8), tmp_path / "train-images-idx3-ubyte")
    write_idx((np.arange(40) % 3).astype(np.uint8), tmp_path / "labels")
    options = ["--order", "label", "--chunk-bytes=1kB", "--shard-bytes=2KiB", "--codec=gzip"]
    source: list[str | Path] = [
        "--source",
        tmp_path / "train-images-idx3-ubyte",
        "--labels",
        tmp_path / "labels",
    ]
    result = run_command(
        "build", tmp_path / "t.zarr", *source, *options, "--level=2", "--no-progress"
    )
    assert (result.exit_code, result.output) == (0, "")
    ds = xr.open_zarr(tmp_path / "t.zarr")
    assert ds.image.encoding["chunks"] == (10, 10, 10)
    assert ds.image.encoding["shards"] == (20, 10, 10)
    assert "GzipCodec(level=2)" in str(ds.image.encoding["compressors"])
    assert (np.diff(ds.label.values.astype(int)) >= 0).all()


def test_build_takes_several_sources(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_idx(np.zeros((4, 2, 2), np.uint8), tmp_path / f"{name}-images-idx3-ubyte")
    sources = [f"--source={tmp_path / name}-images-idx3-ubyte" for name in ("a", "b")]
    options = ["--zarr-format=2", "--labels=none"]
    assert run_command("build", tmp_path / "t.zarr", *sources, *options).exit_code == 0
    assert xr.open_zarr(tmp_path / "t.zarr").sizes["sample"] == 8
    assert (tmp_path / "t.zarr" / ".zmetadata").exists()


def test_build_takes_pairs_of_files_as_a_message_says_that_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    for split, n_samples in (("train", 6), ("test", 4)):
        write_idx(np.zeros((n_samples, 2, 2), np.uint8), folder / f"X_{split}")
        write_idx(np.arange(n_samples, dtype=np.uint8), folder / f"y_{split}")
    write_idx(np.zeros((3, 2, 2), np.uint8), folder / "X_val")
    refused = run_command("build", tmp_path / "t.zarr", "--source", folder)
    assert refused.exit_code == 1
    said = refused.stderr.partition("name them: ")[2].replace(",", " ")
    assert run_command("build", tmp_path / "t.zarr", *shlex.split(said)).exit_code == 0
    ds = xr.open_zarr(tmp_path / "t.zarr")
    assert ds.split.values.tolist() == ["train"] * 6 + ["test"] * 4 + ["val"] * 3
    assert ds.label.values.tolist() == [*range(6), *range(4), -1, -1, -1]
    refused = run_command("build", tmp_path / "t.zarr", *shlex.split(said), "--split=x")
    assert "--split: expected a list with one for each source" in refused.stderr


def test_build_takes_a_folder_of_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "cat/1.png", "dog/1.png")
    options = [f"--source={folder}", "--size", "12x10", "--mode=RGBA", "--fit=pad"]
    result = run_command("build", tmp_path / "t.zarr", *options)
    assert (result.exit_code, result.output) == (0, "")
    assert xr.open_zarr(tmp_path / "t.zarr").image.shape == (2, 10, 12, 4)
    shown = run_command("info", tmp_path / "t.zarr").output
    assert "cat" in shown
    assert "  photos\n" in shown
    assert run_command("plot", tmp_path / "t.zarr", "-o", tmp_path / "t.png").exit_code == 0


def test_sizes_that_differ_name_the_option(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "cat/1.png")
    save(folder / "dog" / "1.png", noise(shape=(9, 9)))
    refused = run_command("build", tmp_path / "t.zarr", f"--source={folder}")
    assert refused.exit_code == 1
    assert "'cat/1.png' has 8 x 6 pixels, 'dog/1.png' has 9 x 9" in refused.output
    assert refused.output.endswith("resize all, such as with --size 8x6\n")
    assert (
        run_command("build", tmp_path / "t.zarr", f"--source={folder}", "--size=8x6").exit_code == 0
    )


@pytest.mark.parametrize("size", ["64", "64 64", "64x", "-1x5", "axb"])
def test_a_size_that_is_none_is_wrong_usage(size: str, tmp_path: Path) -> None:
    refused = run_command("build", tmp_path / "t.zarr", "--size", size)
    assert refused.exit_code == 2
    assert f"{size!r} is not a size in pixels such as 64x64" in refused.output
    refused = run_command("build", tmp_path / "t.zarr", "--size", "5x5")
    assert refused.output == "Error: --size: mnist is no folder or archive of pictures\n"


def test_classes_are_named_by_an_option(tmp_path: Path) -> None:
    write_idx(np.zeros((4, 2, 2), np.uint8), tmp_path / "a-images-idx3-ubyte")
    write_idx(np.arange(4, dtype=np.uint8) % 2, tmp_path / "a-labels-idx1-ubyte")
    (tmp_path / "names.txt").write_text("cat\nbig dog\n")
    source = f"--source={tmp_path / 'a-images-idx3-ubyte'}"
    for names in ("cat,big dog", str(tmp_path / "names.txt")):
        options = [source, "--class-names", names, "--overwrite"]
        assert run_command("build", tmp_path / "t.zarr", *options).exit_code == 0
        label = xr.open_zarr(tmp_path / "t.zarr").label
        assert label.attrs["flag_meanings"] == "cat big_dog"


def test_a_csv_file_of_labels_is_named_by_the_option(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", "1.png", "2.png")
    (tmp_path / "classes.csv").write_text("2,cat\n1,dog\n")
    options = [f"--source={folder}", f"--labels={tmp_path / 'classes.csv'}"]
    assert run_command("build", tmp_path / "t.zarr", *options).exit_code == 0
    assert xr.open_zarr(tmp_path / "t.zarr").label.values.tolist() == [1, 0]


def test_an_existing_store_raises_an_error_unless_overwriting(tmp_path: Path, store: Path) -> None:
    write_idx(np.zeros((4, 2, 2), np.uint8), tmp_path / "a-images-idx3-ubyte")
    source = f"--source={tmp_path / 'a-images-idx3-ubyte'}"
    target = tmp_path / "t.zarr"
    assert run_command("build", target, source, "--labels=none").exit_code == 0
    refused = run_command("build", target)
    assert refused.exit_code == 1
    assert refused.output.startswith(f"Error: {target}: exists already")
    assert run_command("build", target, source, "--labels=none", "--overwrite").exit_code == 0


def test_info_shows_arrays_classes_and_sources(store: Path) -> None:
    shown = run_command("info", store)
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["7", "6,265", "1,028", "7,293"] in [line[:4] for line in lines]
    assert ["total", "60,000", "10,000", "70,000"] in lines
    image = next(line for line in lines if line[:1] == ["image"])
    assert image[1:9] == ["sample", "70,000,", "row", "28,", "col", "28", "uint8", "3685x28x28"]
    assert image[9:13] == ["zstd", "1", "19", "54,880,000"]
    on_disk = sum(
        path.stat().st_size for path in (store / "image" / "c").rglob("*") if path.is_file()
    )
    in_metadata = (store / "image" / "zarr.json").stat().st_size
    assert int(image[13].replace(",", "")) == on_disk + in_metadata
    assert "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609" in shown.output


def test_plot_writes_a_picture_of_sevens_and_one_of_each_digit(store: Path, tmp_path: Path) -> None:
    for name, options in (("sevens.png", ["--label", "7"]), ("digits.png", [])):
        result = run_command("plot", store, *options, "-o", tmp_path / name)
        assert (result.exit_code, result.output) == (0, "")
        picture = imread(tmp_path / name)
        assert picture.shape[0] > 300
        assert picture[..., :3].min() == 0
    refused = run_command("plot", store, "-o", tmp_path / "digits.png")
    assert refused.exit_code == 1
    assert "exists already" in refused.output


def test_a_plot_leaves_classes_out(store: Path, tmp_path: Path) -> None:
    for name, options in (
        ("all_but.png", [f"--exclude={digit}" for digit in range(10) if digit != 7]),
        ("sevens.png", ["--label=7"]),
    ):
        done = run_command("plot", store, "--kind=balance", *options, "-o", tmp_path / name)
        assert (done.exit_code, done.output) == (0, "")
    assert np.array_equal(imread(tmp_path / "all_but.png"), imread(tmp_path / "sevens.png"))


@pytest.mark.parametrize(
    "options",
    [
        ["--kind", "balance"],
        ["--kind", "mean", "--columns", "10"],
        ["--kind", "sheet", "--label", "3", "--label", "8", "--columns", "4"],
        ["--kind", "samples", "--rows", "1", "--split", "test"],
    ],
)
def test_plot_draws_every_kind(options: list[str], store: Path, tmp_path: Path) -> None:
    result = run_command("plot", store, *options, "-o", tmp_path / "picture.png")
    assert (result.exit_code, result.output) == (0, "")
    assert imread(tmp_path / "picture.png").std() > 0


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["info", "nowhere.zarr"], 3, "nowhere.zarr: there is no Zarr store"),
        (["build", "x.zarr", "--source", "minst"], 3, "no data set of that name"),
        (["build", "x.zarr", "--level", "99"], 1, "zstd has levels 1 to 22"),
        (["build", "x.zarr", "--chunk-bytes", "many"], 2, "'many' is not a number of bytes"),
        (["build", "x.zarr", "--order", "size"], 2, "'size' is not one of"),
        (["plot", "nowhere.zarr", "-o", "x.png"], 3, "there is no Zarr store"),
        (["plot", "x", "--kind=balance", "--rows=3", "-o", "x.png"], 2, "balance has no --rows"),
        (["publish", "nowhere.zarr", "x.zarr"], 3, "nowhere.zarr: there is no Zarr store"),
        (["info", "s3://x", "--storage-option", "anon"], 2, "'anon' is not of the form KEY=VALUE"),
    ],
)
def test_an_error_is_one_sentence_on_stderr_without_a_traceback(
    args: list[str], code: int, sentence: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mnist_zarr", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_label_or_picture_format_is_reported_in_one_sentence(
    store: Path, tmp_path: Path
) -> None:
    wrong = run_command("plot", store, "--label", "42", "-o", tmp_path / "x.png")
    assert wrong.exit_code == 1
    assert "no sample has label '42'; choose from 0, 1" in wrong.output
    wrong = run_command("plot", store, "-o", tmp_path / "x.docx")
    assert wrong.exit_code == 1
    assert "x.docx" in wrong.output


def test_help_and_version_import_nothing_heavy() -> None:
    heavy = {"xarray", "numpy", "zarr", "dask", "fsspec", "matplotlib"}
    for args in (["--help"], *([name, "--help"] for name in main.commands), ["--version"]):
        code = (
            "import sys; from mnist_zarr.cli import main\n"
            f"try: main({args!r}, prog_name='mnist-zarr')\n"
            f"finally: print(sorted({heavy} & sys.modules.keys()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", sorted(main.commands))
@pytest.mark.parametrize("columns", [80, 100])
def test_every_help_fits_the_terminal_and_has_an_example(command: str, columns: int) -> None:
    shown = CliRunner().invoke(main, [command, "--help"], terminal_width=columns).output
    assert f"  mnist-zarr {command}" in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_the_list_of_commands_cuts_no_sentence_short() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert "..." not in shown.split("Commands:")[1]


def test_progress_shows_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mnist_zarr", "build", "--level", "1"]
    quiet = subprocess.run([*command, str(tmp_path / "a.zarr")], capture_output=True, check=True)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")
    shown = shown_on_terminal([*command, str(tmp_path / "b.zarr")])
    assert "100%" in shown
    assert "samples/s" in shown


def last_line_on_terminal(*args: str | Path) -> str:
    command = [sys.executable, "-m", "mnist_zarr", *map(str, args)]
    return shown_on_terminal(command).splitlines()[-1].split("\r")[-1]


def test_on_a_terminal_a_command_ends_with_a_line_of_what_it_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_idx_files(digits(1200), "mine")
    built = last_line_on_terminal("build", "a.zarr", "--source", "mine")
    n_objects = sum(path.is_file() for path in Path("a.zarr").rglob("*"))
    assert re.fullmatch(
        rf"a.zarr: 1,200 samples, {n_objects} objects, [\d.]+ kB, built in [\d.]+ s", built
    )
    for args, expected in [
        (["plot", "a.zarr", "-o", "a.png"], r"a.png: picture of samples, [\d.]+ kB, drawn"),
        (
            ["export", "a.zarr", "--to", "idx", "-o", "mine", "--overwrite"],
            r"mine: 1,200 samples, 4 files, [\d.]+ kB, exported",
        ),
        (
            ["export", "a.zarr", "--to", "npz", "-o", "a.npz"],
            r"a.npz: 1,200 samples, [\d.]+ kB, exported",
        ),
        (["verify", "a.zarr"], rf"a.zarr: 1,200 samples, {n_objects} objects, verified"),
        (
            ["publish", "a.zarr", "b.zarr"],
            rf"b.zarr: {n_objects + 2} objects, [\d.]+ kB, published",
        ),
    ]:
        said = last_line_on_terminal(*args)
        assert re.fullmatch(rf"{expected} in [\d.]+ s", said), said


def test_on_a_terminal_a_build_says_how_many_samples_have_no_label(tmp_path: Path) -> None:
    write_idx_files(digits(1200), tmp_path / "mine")
    (tmp_path / "mine" / "t10k-labels-idx1-ubyte").unlink()
    n_test = int((digits(1200).split == "test").sum())
    said = last_line_on_terminal("build", tmp_path / "a.zarr", "--source", tmp_path / "mine")
    assert f"a.zarr: 1,200 samples ({n_test} without labels), " in said


def test_the_last_line_hides_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    watch = _Stopwatch()
    watch.say("s3://me:secret@host/x.zarr", "built")
    assert capsys.readouterr() == ("", "")
    watch.is_heard = True
    watch.say("s3://me:secret@host/x.zarr", "built")
    assert re.fullmatch(r"s3://host/x.zarr: built in [\d.]+ s\n", capsys.readouterr().err)


@pytest.mark.slow
def test_progress_bars_end_where_their_total_is(tmp_path: Path, store: Path) -> None:
    for args, label, total in [
        (["verify", store], "verifying", "70.0k/70.0k"),
        (["export", store, "--to", "idx", "-o", tmp_path / "idx"], "writing", "70.0k/70.0k"),
        (["export", store, "--to", "npz", "-o", tmp_path / "x.npz"], "writing", "70.0k/70.0k"),
        (["publish", store, tmp_path / "b.zarr"], "publishing", "56/56 "),
    ]:
        command = [sys.executable, "-m", "mnist_zarr", *map(str, args)]
        bar = shown_on_terminal(command).splitlines()[-2].split("\r")[-1]
        assert bar.startswith(label)
        assert "100%" in bar
        assert total in bar


def test_on_a_terminal_a_download_has_a_line_of_its_own(
    mirror: Path, cache: Path, tmp_path: Path
) -> None:
    SmallCopy(CATALOG["kmnist"], mirror)
    code = (
        "from tests.support.small_copy import SmallCopy\n"
        "from mnist_zarr.catalog.entries import CATALOG\nfrom pathlib import Path\n"
        "import sys; from mnist_zarr.cli import main\n"
        f"CATALOG['kmnist'] = SmallCopy(CATALOG['kmnist'], Path({str(mirror)!r})).entry\n"
        "main(['build', sys.argv[1], '--source', 'kmnist'])"
    )
    command = [sys.executable, "-c", code]
    shown = shown_on_terminal([*command, str(tmp_path / "a.zarr")])
    said = re.search(r"kmnist: 4 files, [\d.]+ (kB|bytes), downloaded to (\S+) in [\d.]+ s", shown)
    assert said is not None
    assert said[2] == str(cache / "kmnist")
    again = shown_on_terminal([*command, str(tmp_path / "b.zarr")])
    assert "downloaded" not in again
    assert "built in" in again


# A shell lets what runs in the background ignore Ctrl-C, and its children do so too.
INTERRUPTIBLE = """
import signal
from mnist_zarr.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def test_ctrl_c_leaves_the_old_store_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    assert run_command("build", target, "--level", "1").exit_code == 0
    command = [sys.executable, "-c", INTERRUPTIBLE, "build", str(target), "--overwrite"]
    with subprocess.Popen(
        [*command, "--level", "19"], stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.glob(".t.zarr.building-*/new/image/c/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "\nAborted!\n")
    assert os.listdir(tmp_path) == ["t.zarr"]
    assert xr.open_zarr(target).sel(label=7).load().sizes["sample"] == 7293


def test_build_rescales(tmp_path: Path) -> None:
    write_idx(digits().image.values, tmp_path / "a-images-idx3-ubyte")
    source = f"--source={tmp_path / 'a-images-idx3-ubyte'}"
    done = run_command(
        "build", tmp_path / "a.zarr", source, "--labels=none", "--rescale", "-1", "1"
    )
    assert done.exit_code == 0
    opened = xr.open_zarr(tmp_path / "a.zarr").image
    np.testing.assert_allclose(opened, tutorial_scaling(digits().image.values), atol=2.3e-16)


def test_export_writes_an_archive_and_keeps_an_existing_one(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", order="label")
    args = ["export", str(tmp_path / "d.zarr"), "--to", "npz", "-o", str(tmp_path / "d.npz")]
    assert run_command(*args).exit_code == 0
    with np.load(tmp_path / "d.npz") as archive:
        assert archive.files == ["X_train", "y_train", "X_test", "y_test"]
        assert archive["X_train"].dtype == np.float64
    refused = run_command(*args)
    assert refused.exit_code == 1
    assert refused.output.startswith(f"Error: {tmp_path / 'd.npz'}: exists already")
    assert run_command(*args, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("options", "classes"), [(["--label=0", "--label=2"], [0, 2]), (["--exclude=1"], [0, 2])]
)
def test_export_writes_a_selection(options: list[str], classes: list[int], tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr", order="label")
    is_wanted = (digits().split == "test") & digits().label.isin(classes)
    expected = digits().sel(sample=is_wanted)
    export = ["export", f"{tmp_path}/d.zarr", "--split=test", *options]
    done = run_command(*export, "--to=idx", "-o", tmp_path / "idx")
    assert (done.exit_code, done.output) == (0, "")
    assert {file.name[:4] for file in (tmp_path / "idx").iterdir()} == {"t10k"}
    exported = open_idx(tmp_path / "idx")
    np.testing.assert_array_equal(exported.image, expected.image)
    np.testing.assert_array_equal(exported.label, expected.label)
    assert run_command(*export, "--to=npz", "-o", tmp_path / "x.npz").exit_code == 0
    with np.load(tmp_path / "x.npz") as archive:
        np.testing.assert_array_equal(archive["y_test"], expected.label)


def test_verify_tells_by_exit_code_and_text(tmp_path: Path) -> None:
    place = tmp_path / "d.zarr"
    write_zarr(digits(), place, chunk_bytes=120)
    whole = run_command("verify", place)
    assert whole.exit_code == 0
    assert whole.stdout.splitlines()[0] == f"{place}: whole"
    (place / "image" / "c" / "1" / "0" / "0").unlink()
    damaged = run_command("verify", place)
    assert damaged.exit_code == 4
    assert damaged.stdout.splitlines()[0] == f"{place}: DAMAGED OR CHANGED, 1 problem"
    assert "  image/c/1/0/0: is missing" in damaged.stdout.splitlines()
    assert damaged.stderr == ""


def test_verify_prints_json(tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr")
    shutil.rmtree(tmp_path / "d.zarr" / "label" / "c")
    done = run_command("verify", tmp_path / "d.zarr", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 4
    assert found["is_whole"] is False
    assert found["problems"] == [{"place": "label/c/0", "what": "is missing"}]
    assert found["n_samples"] == 60


def test_publish_prints_the_cors_rule(s3: S3Server, tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "t.zarr")
    options = [
        f"--storage-option={name}={json.dumps(value) if isinstance(value, dict) else value}"
        for name, value in s3.options.items()
    ]
    command = [sys.executable, "-m", "mnist_zarr", "publish", str(tmp_path / "t.zarr"), URL]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "t.zarr: 11 objects" in done.stdout
    assert "put-bucket-cors" in done.stdout


def test_build_takes_a_name_and_sources_shows_what_is_here(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallCopy(CATALOG["fashion-mnist"], mirror)
    monkeypatch.setitem(CATALOG, "fashion-mnist", small.entry)
    assert state_of("fashion-mnist") == "to download"
    mnist_zarr.build(tmp_path / "f.zarr", "fashion-mnist", level=1)
    boots = mnist_zarr.select(mnist_zarr.open_store(tmp_path / "f.zarr"), label="ankle boot")
    assert set(boots.label.values.tolist()) == {9}
    assert state_of("fashion-mnist") == "cached"


def state_of(name: str) -> str:
    result = run_command("sources")
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if line.split()[0] == name]
    return line.split("  ")[-1].strip()


def test_sources_lists_every_data_set_with_its_figures() -> None:
    assert state_of("mnist") == "bundled"
    lines = run_command("sources").output.splitlines()
    assert len(lines) == 12
    byclass = next(line for line in lines if line.startswith("emnist-byclass"))
    assert "814,255" in byclass
    assert " 62 " in byclass
    assert max(map(len, lines)) <= 130


def test_sources_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert state_of("kmnist") == "to download"


def test_an_archive_that_is_here_counts_as_cached(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallCopy(CATALOG["emnist-digits"], mirror)
    monkeypatch.setitem(CATALOG, "emnist-digits", small.entry)
    assert state_of("emnist-digits") == "to download"
    own = small.entry.splits[0].images
    assert isinstance(own, ArchiveMember)
    fetch(own.archive)
    assert state_of("emnist-digits") == "cached"


@pytest.mark.usefixtures("mirror")
def test_a_data_set_that_cannot_be_downloaded_is_reported_in_one_line_per_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "kmnist", offline(CATALOG["kmnist"]))
    result = run_command("build", tmp_path / "k.zarr", "--source", "kmnist")
    assert result.exit_code == 1
    assert result.output.startswith("Error: kmnist/train-images-idx3-ubyte.gz: no mirror gives")
    assert not (tmp_path / "k.zarr").exists()


def test_what_a_store_says_cannot_forge_lines_or_control_the_terminal(tmp_path: Path) -> None:
    evil = "x\x1b[2J\r\u202e\nmine.zarr: whole\n"
    attrs = {"flag_values": [0, 1, 2], "flag_meanings": f"a b {evil.split()[0]}"}
    ds = digits(9).assign_attrs(title=evil, license=evil, source=evil)
    ds = ds.rename({"row": evil.split()[0]}).assign_coords(split=("sample", [evil] * 9))
    ds["label"].attrs = attrs
    target = tmp_path / "t.zarr"
    write_zarr(ds.chunk(), target)
    (target / "image" / "c" / "0" / "0" / "0").unlink()
    document = json.loads((target / "zarr.json").read_text())
    document["attributes"][f"{evil}_sha256"] = evil
    document["attributes"]["source_sha256"] = [evil]
    (target / "zarr.json").write_text(json.dumps(document))
    said = [
        run_command("info", target),
        run_command("verify", target),
        run_command("plot", target, "--label", evil, "-o", tmp_path / "x.png"),
        run_command("plot", target, "--split", "none", "-o", tmp_path / "x.png"),
        run_command("verify", tmp_path / evil),
    ]
    assert [result.exit_code for result in said] == [0, 4, 1, 1, 3]
    for line in "".join(result.output for result in said).split("\n"):
        assert line.isprintable()
        assert not line.startswith("mine.zarr")
    assert "x\\x1b[2J\\r\\u202e\\nmine.zarr: whole" in said[0].output
    assert all("mine.zarr: whole" in result.output for result in said[2:])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["build", "d.zarr"], "replace it with --overwrite"),
        (["export", "d.zarr", "--to=npz", "-o", "d.npz"], "replace it with --overwrite"),
        (
            ["build", "x.zarr", "--shard-bytes=9", "--zarr-format=2"],
            "--shard-bytes: Zarr format 2 has no shards; use --zarr-format 3",
        ),
        (["build", "x.zarr", "--chunk-bytes=0"], "--chunk-bytes: expected a whole number"),
        (["build", "x.zarr", "--labels=x"], "--labels: the data set 'mnist' of the catalog"),
        (["build", "x.zarr", "--source-option=a=1"], "takes no --source-option, got a"),
        (["info", "d.zarr", "--storage-option=a=1"], "takes no --storage-option, got a"),
        (
            ["build", "x.zarr", "--source=images-idx3-ubyte"],
            "name them, such as with --labels FILE, or build without labels with --labels none",
        ),
        (
            ["build", "x.zarr", "--source=images-idx3-ubyte", "--labels=none", "--order=label"],
            "--order label: needs 'label'",
        ),
        (
            ["build", "x.zarr", "--source=my files"],
            "--source 'my files/X', --labels 'my files/y'",
        ),
        (["publish", "d.zarr", "p.zarr", "--public-url=x"], "is this --public-url the URL of"),
    ],
    ids=str,
)
def test_errors_name_the_options_of_the_command(
    args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_zarr(digits(9), "d.zarr")
    mnist_zarr.write_npz(digits(9), "d.npz")
    Path("my files").mkdir()
    for name, array in (("images-idx3-ubyte", IMAGES), ("my files/X", IMAGES)):
        write_idx(array, name)
    write_idx(np.arange(4, dtype=np.uint8), "my files/y")
    done = run_command(*args)
    assert done.exit_code in (1, 3)
    assert said in done.stderr
    assert "`" not in done.stderr


def test_names_of_the_caller_are_shown_as_they_are() -> None:
    for name in ("`storage_options=x y`", "overwrite=True", "`no_option=1`"):
        assert name in run_command("info", name).stderr


IMAGES = np.zeros((4, 2, 2), np.uint8)


def test_what_is_not_there_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    for args in (
        ["verify", "nowhere.zarr"],
        ["info", "nowhere.zarr.zip"],
        ["publish", "nowhere.zarr", tmp_path / "x.zarr"],
        ["plot", "memory://nowhere.zarr", "-o", tmp_path / "x.png"],
        ["export", "nowhere.zarr", "--to", "npz", "-o", tmp_path / "x.npz"],
        ["build", tmp_path / "x.zarr", "--source", "nowhere/train-images-idx3-ubyte"],
        ["build", tmp_path / "x.zarr", "--source", "nowhere.npz"],
        ["build", tmp_path / "x.zarr", "--source", "minst"],
    ):
        assert run_command(*args).exit_code == 3
    assert os.listdir(tmp_path) == []


def test_ctrl_c_has_the_same_exit_code_in_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFolder, "open", interrupt)
    for args in (["verify", "x.zarr"], ["info", "x.zarr"], ["plot", "x.zarr", "-o", "x.png"]):
        done = run_command(*args)
        assert (done.exit_code, done.stderr) == (130, "\nAborted!\n")


def test_the_help_lists_the_exit_codes() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    for code in ("0 done", "1 error", "2 wrong usage", "3 no such", "4 verify", "130 interrupted"):
        assert code in shown


@pytest.mark.parametrize(("encoding", "bar"), [("cp1252", "#"), ("ascii", "#"), ("utf-8", "█")])
def test_info_is_shown_in_any_encoding(encoding: str, bar: str, tmp_path: Path) -> None:
    ds = digits(9)
    ds.label.attrs |= {"flag_values": [0, 1, 2], "flag_meanings": "お き す"}
    write_zarr(ds, tmp_path / "d.zarr")
    command = [sys.executable, "-m", "mnist_zarr", "info", str(tmp_path / "d.zarr")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding)
    assert bar * 24 in shown
    assert ("お" in shown) == (encoding == "utf-8")


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    write_zarr(digits(9), tmp_path / "d.zarr")
    for command, code in (("info", 0), ("verify", 0), ("damaged", 4)):
        if command == "damaged":
            shutil.rmtree(tmp_path / "d.zarr" / "label" / "c")
            command = "verify"
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = subprocess.run(
            [sys.executable, "-m", "mnist_zarr", command, str(tmp_path / "d.zarr")],
            stdout=write_end,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(write_end)
        assert (done.returncode, done.stderr) == (code, b"")


def test_a_picture_in_a_missing_folder_is_not_called_by_a_temporary_name(
    store: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "missing" / "x.png"
    done = run_command("plot", store, "-o", picture)
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: {picture}: was not written: there is no folder '{picture.parent}'\n"
    )


def test_a_folder_of_a_web_server_without_its_slash_is_told_from_a_failed_download(
    web_address: str, tmp_path: Path
) -> None:
    mnist_zarr.write_idx_files(digits(9), tmp_path / "files")
    target = tmp_path / "t.zarr"
    done = run_command("build", target, "--source", f"{web_address}/files")
    assert "the URL of a folder ends with a slash" in done.stderr
    assert run_command("build", target, "--source", f"{web_address}/files/").exit_code == 0


def test_build_takes_sources_of_several_kinds(tmp_path: Path) -> None:
    mnist_zarr.write_idx_files(digits(9), tmp_path / "files")
    write_zarr(digits(9), tmp_path / "d.zarr")
    mnist_zarr.write_npz(digits(9), tmp_path / "d.npz", scaled=False, flat=False)
    sources = [f"--source={tmp_path / name}" for name in ("files", "d.zarr", "d.npz")]
    done = run_command("build", tmp_path / "t.zarr", *sources)
    assert (done.exit_code, done.stderr) == (0, "")
    assert xr.open_zarr(tmp_path / "t.zarr").sizes["sample"] == 27
    refused = run_command("build", tmp_path / "x.zarr", "--source=mnist", *sources)
    assert refused.exit_code == 1
    assert "'image' is uint8 (row 28, col 28) in mnist, uint8 (row 4, col 3)" in refused.stderr
