"""Which IDX files belong together, by their names.

A name consists of a *prefix*, a role and an ending, in any of the usual spellings::

    train-images-idx3-ubyte.gz           t10k-labels.idx1-ubyte
    `prefix' role  `------' ending       `prefix' `---' role

A word of the prefix, or one after the role, is the split: ``train``, ``test`` or
``val``, in any of their spellings; without one, the last word of the prefix. Hidden
files do not count, such as those that a Mac puts into archives (``._train-...``).
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fsspec.core import url_to_fs

from mnist_zarr.dataset.schema import SPLIT_OF_WORD, split_order
from mnist_zarr.errors import MissingExtraError, MnistZarrError, SourceError, SourceNotFoundError
from mnist_zarr.files.byte_source import ByteSource
from mnist_zarr.files.folders import LocalFiles, ZipFiles
from mnist_zarr.files.sources import open_bytes
from mnist_zarr.files.urls import (
    check_options,
    is_url,
    is_web_server,
    name_failures,
    path_or_url,
    reason_of,
    shown_url,
)
from mnist_zarr.formats.idx import IdxFile
from mnist_zarr.formats.picture_folders import holds_pictures
from mnist_zarr.formats.stacked import SampleFile

Role = Literal["images", "labels"]
IDX_NAME = re.compile(
    r"""^(?!\.)(?P<prefix>.*?)(?P<role>images?|imgs?|labels?)
        (?:[-._\ ](?P<after>train(?:ing)?|test(?:ing)?|t10k|val(?:id(?:ation)?)?))?
        [-._\ ]idx(?:(?P<rank>\d+)(?:[-._\ ](?P<type>ubyte|byte|short|int|float|double))?)?
        (?P<copy>[ _]?\(\d+\))?(?P<gz>\.gz)?$""",
    re.IGNORECASE | re.VERBOSE,
)
# Of a folder without usual names: each is opened to see whether it is IDX.
MAX_FILES_TRIED = 100


@dataclass(frozen=True)
class IdxName:
    """What the name of an IDX file says."""

    prefix: str  # lower case, without the separator before the role, but with a split after it
    role: Role
    is_gzip: bool
    # As it is spelt, with the rank, the type, and the number that a browser gives to a second
    # download of one name: files that differ in one of these but agree in prefix and role are not
    # of one data set.
    content: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def split(self) -> str | None:
        """Name of the split, or None where the name has no prefix."""
        words = [word for word in re.split(r"(?:[-._\s]|%20)+", self.prefix) if word]
        known = [SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD]
        return (known or words or [None])[-1]


@dataclass(frozen=True)
class IdxPair:
    """An image file, its label file if there is one, and the split they hold."""

    images: str
    labels: str | None
    split: str | None


def parse_name(path: str | os.PathLike[str]) -> IdxName | None:
    """Return what the name of a file says, or None if it is not a usual one of IDX files.

    Examples
    --------
    >>> parse_name("data/t10k-images.idx3-ubyte")
    IdxName(prefix='t10k', role='images', is_gzip=False)
    >>> parse_name("photo.png") is None
    True
    """
    match = IDX_NAME.match(_base_name(os.fspath(path)))
    if match is None:
        return None
    role: Role = "labels" if match["role"].lower().startswith("label") else "images"
    prefix = match["prefix"].rstrip("-._ ")
    if match["after"]:
        prefix = f"{prefix} {match['after']}".lstrip()
    kind, copy = (match["type"] or "").lower(), (match["copy"] or "").strip(" _")
    content = (prefix, match["rank"] or "", kind, copy)
    return IdxName(prefix.lower(), role, match["gz"] is not None, content)


def find_labels(
    images: str | os.PathLike[str], *, storage_options: dict[str, Any] | None = None
) -> str | None:
    """Return the label file in the folder of an image file, or None.

    Parameters
    ----------
    images : str or os.PathLike
        Path or URL of the image file.
    storage_options : dict, optional
        Passed to the fsspec file system of a URL.

    Raises
    ------
    SourceNotFoundError
        If there is no such folder, or the protocol of the URL is unknown.
    SourceError
        If there are several label files of that name, or a raw and a gzip file that
        differ; if the case of its letters differs from that of the image file.
    """
    path = path_or_url(images)
    name = parse_name(path)
    if name is None or name.role != "images":
        return None
    folder = path[: len(path) - len(_base_name(path))]
    try:
        names = _list_names(folder, storage_options)
    except SourceError:  # a web server may refuse to list the folder
        return _probe_labels(path, storage_options)
    wanted = [
        candidate
        for candidate in names
        if (other := parse_name(candidate))
        and (other.role, other.prefix) == ("labels", name.prefix)
    ]
    if wanted:
        wanted.sort(key=_preference)
        shown = shown_url(folder)
        _check_one_content(shown, wanted, _opener(folder, storage_options))
        _check_one_spelling(shown, _base_name(path), wanted[0])
        return folder + wanted[0]
    # A web server may answer with a page that names no file.
    return _probe_labels(path, storage_options) if is_url(path) else None


def refusal_of_labels(images: object, *, storage_options: dict[str, Any] | None = None) -> str:
    """Say which label file beside an image file a server refuses; nothing if it refuses none."""
    if not isinstance(images, str) or not is_url(images):
        return ""
    fs, _ = _file_system(images, storage_options)
    for candidate in _usual_names_of_labels(images):
        try:
            with name_failures(candidate, "opened", SourceError, SourceNotFoundError):
                fs.info(_file_system(candidate, storage_options)[1])
        except SourceNotFoundError:
            continue
        except SourceError as error:
            return f"{error} (which some servers also say of what is not there)"
    return ""


def find_pairs(
    folder: str | os.PathLike[str], *, storage_options: dict[str, Any] | None = None
) -> list[IdxPair]:
    """Return the pairs in a folder, train first, then test, then others by name.

    Raises
    ------
    SourceNotFoundError
        If there is no such folder.
    SourceError
        If it cannot be listed, holds no IDX image file, labels without their
        images, or two image files of the same split; if names differ in the case
        of their letters only, or a raw and a gzip file of one name differ.
    """
    place = path_or_url(folder)
    place += "" if place.endswith(("/", os.sep)) else "/"
    names = _list_names(place, storage_options)
    opener = _opener(place, storage_options)
    describe = functools.partial(_describe_contents, place)
    return [
        IdxPair(place + pair.images, pair.labels and place + pair.labels, pair.split)
        for pair in _pairs_among(shown_url(place), names, opener, describe)
    ]


def find_pairs_in_archive(archive: ZipFiles) -> list[IdxPair]:
    """Return the pairs in a zip archive, in whatever folders; the paths are those of members.

    Raises
    ------
    SourceError
        As :func:`find_pairs`; also if files of one name differ.
    """
    path_of: dict[str, str] = {}
    for path in archive.paths():
        if parse_name(path) is None:
            continue
        first = path_of.setdefault(_base_name(path), path)
        if archive.content_of(first) != archive.content_of(path):
            raise SourceError(
                f"{archive.name}: more than one data set: {first!r} and {path!r}; unpack the "
                "archive and name one of its folders"
            )
    pairs = _pairs_among(
        archive.name,
        list(path_of),
        lambda name: open_bytes(archive.open(path_of[name])),
        lambda names: "",
    )
    return [
        IdxPair(path_of[pair.images], pair.labels and path_of[pair.labels], pair.split)
        for pair in pairs
    ]


def _opener(folder: str, storage_options: dict[str, Any] | None) -> Callable[[str], ByteSource]:
    return lambda name: open_bytes(folder + name, storage_options=storage_options)


def _pairs_among(
    place: str,
    names: Sequence[str],
    open_file: Callable[[str], ByteSource],
    describe: Callable[[list[str]], str],
) -> list[IdxPair]:
    """Return the pairs among files of these names; ``place`` is where messages say they are."""
    found: dict[tuple[str, Role], list[str]] = {}
    for candidate in sorted(names, key=_preference):
        if parsed := parse_name(candidate):
            found.setdefault((parsed.prefix, parsed.role), []).append(candidate)
    for candidates in found.values():
        _check_one_content(place, candidates, open_file)
    chosen = {key: candidates[0] for key, candidates in found.items()}
    pairs = []
    for (prefix, role), images in chosen.items():
        if role == "images":
            labels = chosen.get((prefix, "labels"))
            if labels:
                _check_one_spelling(place, images, labels)
            split = IdxName(prefix, role, is_gzip=False).split
            pairs.append(IdxPair(images, labels, split))
    if not pairs:
        raise SourceError(
            f"{place}: expected IDX image files such as "
            f"'train-images-idx3-ubyte.gz', got none among {len(names)} files"
            f"{describe(list(names))}"
        )
    for (prefix, role), labels in chosen.items():
        if (prefix, "images") not in chosen:
            raise SourceError(
                f"{place}: {labels!r} has no image file beside it, unlike other {role}; add it, or "
                "name the image files instead of the folder"
            )
    pairs.sort(key=lambda pair: (split_order(pair.split), pair.images))
    _check_one_of_each(place, pairs)
    return pairs


def is_folder(
    path: str | os.PathLike[str], *, storage_options: dict[str, Any] | None = None
) -> bool:
    """Whether this is a folder. The URL of one on a web server ends with a slash."""
    place = path_or_url(path)
    if not is_url(place):
        return os.path.isdir(place)
    fs, inner = _file_system(place, storage_options)
    # A web server has no folders, and asking it would fetch the file.
    if place.endswith("/") or is_web_server(fs):
        return place.endswith("/")
    with name_failures(place, "opened", SourceError, SourceNotFoundError):
        return bool(fs.isdir(inner))


def _describe_contents(place: str, names: list[str]) -> str:
    """Say which files are IDX whatever their names, and how to use them."""
    files: dict[str, IdxFile] = {}
    for name in [] if is_url(place) else sorted(names)[:MAX_FILES_TRIED]:
        with contextlib.suppress(MnistZarrError):
            files[name] = IdxFile(place + name)
    if not files:
        has_pictures = not is_url(place) and holds_pictures(LocalFiles(place))
        return "; it holds pictures, which open_pictures and build read" if has_pictures else ""
    listed = ", ".join(f"{name!r} {file.dtype} {file.shape}" for name, file in files.items())
    pairs = pair_by_content(files)
    if not pairs:
        return f"; by their content these are IDX files: {listed}"
    images, labels, splits = ([*of_all] for of_all in zip(*pairs, strict=True))
    given: dict[str, list[Any]] = {"source": [place + name for name in images]}
    if any(labels):
        given["labels"] = [name is not None and place + name for name in labels]
    if all(splits) and len(set(splits)) == len(splits):
        given["split"] = splits
    one = {name: values[0] for name, values in given.items()} if len(pairs) == 1 else given
    use = ", ".join(f"`{name}={value!r}`" for name, value in one.items())
    return f"; by their content these are IDX files: {listed}; name them: {use}"


def pair_by_content(
    files: Mapping[str, SampleFile],
) -> list[tuple[str, str | None, str | None]]:
    """Return image file, label file and split of each pair among files of any names.

    Images have the highest rank, labels are as many integers. Of several label files that fit,
    the one whose name is the most similar is taken, of the same split if names tell it.
    """
    images = [name for name, file in files.items() if len(file.shape) > 2]
    images = images or [name for name, file in files.items() if len(file.shape) > 1]
    unused = [
        name for name, file in files.items() if len(file.shape) == 1 and file.dtype.kind in "iu"
    ]
    pairs = []
    for name in images:
        fitting = [other for other in unused if files[other].shape[0] == files[name].shape[0]]
        labels = max(fitting, key=functools.partial(_similarity, name), default=None)
        if labels:
            unused.remove(labels)
        pairs.append((name, labels, _split_in(name)))
    return sorted(pairs, key=lambda pair: split_order(pair[2]))


def _similarity(name: str, other: str) -> tuple[bool, float]:
    is_same_split = _split_in(name) == _split_in(other)
    return is_same_split, difflib.SequenceMatcher(None, name, other).ratio()


def _split_in(name: str) -> str | None:
    """Return the split that a word of a name tells; None if none does, or several do."""
    words = re.split(r"[^a-z0-9]+", _base_name(name).lower())
    found = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    return found.pop() if len(found) == 1 else None


def _check_one_of_each(place: str, pairs: list[IdxPair]) -> None:
    image_of_split: dict[str | None, str] = {}
    for pair in pairs:
        if pair.split in image_of_split:
            raise SourceError(
                f"{place}: more than one data set: {image_of_split[pair.split]!r} and "
                f"{pair.images!r} are both split {pair.split!r}; name the image "
                "files instead of the folder"
            )
        image_of_split[pair.split] = pair.images


def _check_one_content(
    place: str, names: list[str], open_file: Callable[[str], ByteSource]
) -> None:
    """Check that files of one prefix and role are copies of each other, such as in gzip."""
    contents = [parsed.content for name in names if (parsed := parse_name(name))]
    for name, content in zip(names, contents, strict=True):
        if content != contents[0]:
            raise SourceError(
                f"{place}: more than one data set: {names[0]!r} and {name!r}; name the image and "
                "the label file instead of the folder"
            )
    for name in names[1:]:
        one, other = open_file(names[0]), open_file(name)
        if not one.equals(other):
            raise SourceError(
                f"{one.name} and {other.name}: expected copies of one file, as their names say, "
                "got files that differ; remove the wrong one, or name the image and the label "
                "file yourself"
            )


def _check_one_spelling(place: str, images: str, labels: str) -> None:
    spelt = [parsed.content[0] for name in (images, labels) if (parsed := parse_name(name))]
    if spelt[0] != spelt[-1]:
        raise SourceError(
            f"{place}: {images!r} and {labels!r} differ in the case of their letters; if they "
            "belong together, name the label file as well"
        )


def _base_name(path: str) -> str:
    return re.split(r"[/\\]" if os.sep == "\\" else "/", path)[-1]


def _preference(name: str) -> tuple[bool, str]:
    """Sort raw files before gzip: their samples can be read in any order."""
    return name.lower().endswith(".gz"), name


def _list_names(folder: str, storage_options: dict[str, Any] | None) -> list[str]:
    try:
        if not is_url(folder):
            with os.scandir(folder or ".") as entries:
                return [entry.name for entry in entries if not entry.is_dir()]
        fs, path = _file_system(folder, storage_options)
        found = fs.ls(path, detail=True)
        return [_base_name(entry["name"]) for entry in found if entry["type"] != "directory"]
    except (SourceNotFoundError, MissingExtraError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFoundError(f"{shown_url(folder)}: there is no such folder") from error
    except Exception as error:  # every file system has errors of its own
        raise SourceError(
            f"{shown_url(folder)}: the folder cannot be listed: {reason_of(error)}; name the image "
            "files instead"
        ) from error


def _file_system(url: str, storage_options: dict[str, Any] | None) -> tuple[Any, str]:
    check_options(storage_options)
    with name_failures(url, "opened", SourceError, SourceNotFoundError):
        try:
            fs, path = url_to_fs(url, **(storage_options or {}))
        except ValueError as error:  # unknown protocol
            raise SourceNotFoundError(f"{shown_url(url)}: cannot be opened: {error}") from error
    return fs, path


def _probe_labels(images: str, storage_options: dict[str, Any] | None) -> str | None:
    fs, _ = _file_system(images, storage_options)
    for candidate in _usual_names_of_labels(images):
        # A bucket that must not be listed answers so for what is not there.
        with (
            name_failures(candidate, "opened", SourceError, SourceNotFoundError),
            contextlib.suppress(PermissionError),
        ):
            if fs.exists(_file_system(candidate, storage_options)[1]):
                return candidate
    return None


def _usual_names_of_labels(images: str) -> Iterator[str]:
    base = _base_name(images)
    match = IDX_NAME.match(base)
    if match is None:
        return
    after = base[match.end("role") : match.end("after")] if match["after"] else ""
    separator = base[match.end("role") + len(after)]
    folder = images[: len(images) - len(base)]
    endings = [f"{separator}idx1-ubyte", "-idx1-ubyte", ".idx1-ubyte", "-idx2-int"]
    for ending in dict.fromkeys(endings):
        for suffix in (match["gz"] or "", "" if match["gz"] else ".gz"):
            yield f"{folder}{match['prefix']}labels{after}{ending}{suffix}"
