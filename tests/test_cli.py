"""The command line, through the real entry point; stores are opened again afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from matplotlib.image import imread

from mnist_zarr.cli import main
from mnist_zarr.formats.idx import write_idx


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli") / "mnist.zarr"
    result = run("build", place, "--level", "1")
    assert (result.exit_code, result.output) == (0, "")
    return place


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
    result = run("build", tmp_path / "t.zarr", *source, *options, "--level=2", "--no-progress")
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
    assert run("build", tmp_path / "t.zarr", *sources, "--zarr-format", "2").exit_code == 0
    assert xr.open_zarr(tmp_path / "t.zarr").sizes["sample"] == 8
    assert (tmp_path / "t.zarr" / ".zmetadata").exists()


def test_an_existing_store_is_an_error_unless_overwriting(tmp_path: Path, store: Path) -> None:
    write_idx(np.zeros((4, 2, 2), np.uint8), tmp_path / "a-images-idx3-ubyte")
    source = f"--source={tmp_path / 'a-images-idx3-ubyte'}"
    target = tmp_path / "t.zarr"
    assert run("build", target, source).exit_code == 0
    refused = run("build", target)
    assert refused.exit_code == 1
    assert refused.output.startswith(f"Error: {target}: exists already")
    assert run("build", target, source, "--overwrite").exit_code == 0


def test_info_shows_arrays_classes_and_sources(store: Path) -> None:
    shown = run("info", store)
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
        result = run("plot", store, *options, "-o", tmp_path / name)
        assert (result.exit_code, result.output) == (0, "")
        picture = imread(tmp_path / name)
        assert picture.shape[0] > 300
        assert picture[..., :3].min() == 0
    refused = run("plot", store, "-o", tmp_path / "digits.png")
    assert refused.exit_code == 1
    assert "exists already" in refused.output


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
    result = run("plot", store, *options, "-o", tmp_path / "picture.png")
    assert (result.exit_code, result.output) == (0, "")
    assert imread(tmp_path / "picture.png").std() > 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["info", "nowhere.zarr"], "nowhere.zarr: there is no Zarr store"),
        (["build", "x.zarr", "--source", "minst"], "no data set of that name"),
        (["build", "x.zarr", "--level", "99"], "zstd has levels 1 to 22"),
        (["build", "x.zarr", "--chunk-bytes", "many"], "'many' is not a number of bytes"),
        (["build", "x.zarr", "--order", "size"], "'size' is not one of"),
        (["plot", "nowhere.zarr", "-o", "x.png"], "there is no Zarr store"),
        (["plot", "x", "--kind=balance", "--rows=3", "-o", "x.png"], "balance has no --rows"),
        (["publish", "nowhere.zarr", "x.zarr"], "nowhere.zarr: there is no Zarr store"),
        (["info", "s3://x", "--storage-option", "anon"], "'anon' is not of the form KEY=VALUE"),
    ],
)
def test_an_error_is_one_sentence_on_stderr_and_no_traceback(
    args: list[str], sentence: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mnist_zarr", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_label_or_picture_format_is_one_sentence(store: Path, tmp_path: Path) -> None:
    wrong = run("plot", store, "--label", "42", "-o", tmp_path / "x.png")
    assert wrong.exit_code == 1
    assert "no sample has label '42'; choose from 0, 1" in wrong.output
    wrong = run("plot", store, "-o", tmp_path / "x.docx")
    assert wrong.exit_code == 1
    assert "x.docx" in wrong.output


def test_help_and_version_do_not_import_xarray() -> None:
    subcommands = ("build", "plot", "export")
    for args in (["--help"], *([name, "--help"] for name in subcommands), ["--version"]):
        code = (
            "import sys; from mnist_zarr.cli import main\n"
            f"try: main({args!r}, prog_name='mnist-zarr')\n"
            "finally: print(sorted({'xarray', 'numpy', 'zarr'} & sys.modules.keys()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_help_starts_in_under_a_third_of_the_time_of_importing_xarray() -> None:
    commands = [["-m", "mnist_zarr", "--help"], ["-c", "import xarray"]]
    seconds: list[list[float]] = [[], []]
    for _ in range(5):
        for command, taken in zip(commands, seconds, strict=True):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            taken.append(time.perf_counter() - start)
    of_help, of_xarray = map(statistics.median, seconds)
    assert of_help < of_xarray / 3  # about a ninth


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
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with subprocess.Popen([*command, str(tmp_path / "b.zarr")], stderr=terminal) as process:
        os.close(terminal)
        shown = read_all(controller)
    assert process.returncode == 0
    assert "100%" in shown
    assert "samples/s" in shown


def read_all(terminal: int) -> str:
    shown = b""
    try:
        while data := os.read(terminal, 4096):
            shown += data
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(terminal)
    return shown.decode()


def test_ctrl_c_leaves_the_old_store_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    assert run("build", target, "--level", "1").exit_code == 0
    command = [sys.executable, "-m", "mnist_zarr", "build", str(target), "--overwrite"]
    with subprocess.Popen(
        [*command, "--level", "19"], stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.glob(".t.zarr.building/new-*/image/c/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, "\nAborted!\n")
    assert os.listdir(tmp_path) == ["t.zarr"]
    assert xr.open_zarr(target).sel(label=7).load().sizes["sample"] == 7293
