"""The data of the catalog: what each data set is, and where its files come from.

Sizes and checksums are those that the publishers or two independent packages
state; class names are those of the publishers' class maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Literal

BUNDLED_FILES = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class BundledFile:
    """A file that comes with the package."""

    name: str


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web.

    Attributes
    ----------
    dataset : str
        The data set that it belongs to.
    name : str
        Its name.
    mirrors : tuple of str
        URLs, in the order in which they are tried.
    checksum : str
        As ``"md5:..."`` or ``"sha256:..."``.
    size : int or None
        Number of bytes, if known.
    """

    dataset: str
    name: str
    mirrors: tuple[str, ...]
    checksum: str
    size: int | None = None


@dataclass(frozen=True)
class ArchiveMember:
    """A file inside a zip archive on the web.

    Attributes
    ----------
    archive : RemoteFile
        The archive.
    member : str
        The name inside the archive.
    checksum : str
        Of the member, as ``"md5:..."`` or ``"sha256:..."``.
    """

    archive: RemoteFile
    member: str
    checksum: str


DataFile = BundledFile | RemoteFile | ArchiveMember


@dataclass(frozen=True)
class Split:
    """The images and labels of one split."""

    name: str
    images: DataFile
    labels: DataFile


@dataclass(frozen=True)
class CatalogEntry:
    """A data set known by name.

    Attributes
    ----------
    name : str
        What ``open_dataset`` calls it.
    title : str
        A line that says what it is.
    publisher : str
        Who offers the files.
    splits : tuple of Split
        Its splits, in the order in which they are concatenated.
    n_samples : int
        Number of samples in all splits together.
    class_names : tuple of str
        The name of each label, from ``first_label`` on.
    license : str
        Of the data, as their publishers state it, in a few words.
    citation : str
        How to cite the data.
    image_comment : str
        What the pixel values mean.
    license_details : str
        What else there is to say about the licence.
    first_label : int
        The lowest label.
    kind : {"idx", "idx transposed", "qmnist", "npz"}
        How to read the files: as IDX; as IDX with rows and columns swapped; as
        IDX with QMNIST's table of labels; as NumPy archives of one array.
    image_sha256, label_sha256 : str or None
        SHA-256 of all pixels and of all labels, as a store records them (see
        :mod:`mnist_zarr.dataset.records`), where somebody has computed them.
    """

    name: str
    title: str
    publisher: str
    splits: tuple[Split, ...]
    n_samples: int
    class_names: tuple[str, ...]
    license: str
    citation: str
    image_comment: str = "0 is background, 255 is foreground"
    license_details: str = ""
    first_label: int = 0
    kind: Literal["idx", "idx transposed", "qmnist", "npz"] = "idx"
    image_sha256: str | None = None
    label_sha256: str | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        """All files: the images and labels of every split."""
        return tuple(file for split in self.splits for file in (split.images, split.labels))


def _splits(files: Sequence[DataFile]) -> tuple[Split, ...]:
    train_images, train_labels, test_images, test_labels = files
    return Split("train", train_images, train_labels), Split("test", test_images, test_labels)


# File sizes in bytes, and checksums.
PUBLISHED: dict[str, dict[str, tuple[int, str]]] = {
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": (
            26_421_880,
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "train-labels-idx1-ubyte.gz": (
            29_515,
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "t10k-images-idx3-ubyte.gz": (
            4_422_102,
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            5_148,
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": (
            18_165_135,
            "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        ),
        "train-labels-idx1-ubyte.gz": (
            29_497,
            "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        ),
        "t10k-images-idx3-ubyte.gz": (
            3_041_136,
            "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            5_120,
            "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    },
    "k49": {
        "k49-train-imgs.npz": (
            66_117_696,
            "md5:7ac088b20481cf51dcd01ceaab89d821",
        ),
        "k49-train-labels.npz": (
            164_485,
            "md5:44a8e1b893f81e63ff38d73cad420f7a",
        ),
        "k49-test-imgs.npz": (
            10_971_201,
            "md5:d352e201d846ce6b94f42c990966f374",
        ),
        "k49-test-labels.npz": (
            27_450,
            "md5:4da6f7a62e67a832d5eb1bd85c5ee448",
        ),
    },
    "qmnist": {
        "qmnist-train-images-idx3-ubyte.gz": (
            9_704_059,
            "md5:ed72d4157d28c017586c42bc6afe6370",
        ),
        "qmnist-train-labels-idx2-int.gz": (
            463_024,
            "sha256:2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
        ),
        "qmnist-test-images-idx3-ubyte.gz": (
            9_742_279,
            "md5:1394631089c404de565df7b7aeaf9412",
        ),
        "qmnist-test-labels-idx2-int.gz": (
            526_800,
            "sha256:9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
        ),
    },
}
MIRRORS = {
    "fashion-mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    "kmnist": ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    "k49": ("https://codh.rois.ac.jp/kmnist/dataset/k49/",),
    "qmnist": ("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
}


def _remote_splits(dataset: str) -> tuple[Split, ...]:
    return _splits(
        [
            RemoteFile(
                dataset, name, tuple(mirror + name for mirror in MIRRORS[dataset]), checksum, size
            )
            for name, (size, checksum) in PUBLISHED[dataset].items()
        ]
    )


MNIST = CatalogEntry(
    name="mnist",
    title="MNIST database of handwritten digits",
    publisher="Y. LeCun, C. Cortes, C. J. C. Burges",
    splits=_splits(
        [
            BundledFile("train-images-idx3-ubyte.gz"),
            BundledFile("train-labels-idx1-ubyte.gz"),
            BundledFile("t10k-images-idx3-ubyte.gz"),
            BundledFile("t10k-labels-idx1-ubyte.gz"),
        ]
    ),
    n_samples=70_000,
    class_names=tuple(digits),
    image_comment="0 is background (white), 255 is foreground (black)",
    license="CC-BY-SA-3.0 or MIT",
    license_details=(
        "stated differently by its distributors: CC-BY-SA-3.0 (Keras; copyright Y. LeCun and "
        "C. Cortes), MIT (dataset card on the Hugging Face hub)"
    ),
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document "
        "recognition. Proceedings of the IEEE 86(11), 2278-2324, 1998. doi:10.1109/5.726791"
    ),
    image_sha256="5b92582eb909c82a9bfefcd44acbe9233be3eb5b419a44cf211022ad2bf4bf96",
    label_sha256="671ff9d70b4811116d55c3dd479efa7a981e2e62753ef7a6d5c15fea81e63d27",
)
FASHION_MNIST = CatalogEntry(
    name="fashion-mnist",
    title="Fashion-MNIST: pictures of articles of clothing",
    publisher="github.com/zalandoresearch/fashion-mnist",
    splits=_remote_splits("fashion-mnist"),
    n_samples=70_000,
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    license="MIT",
    license_details="MIT, copyright Zalando SE",
    citation=(
        "H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for benchmarking "
        "machine learning algorithms. 2017. arXiv:1708.07747"
    ),
)
KUZUSHIJI_LICENSE = (
    'CC-BY-SA-4.0; "KMNIST Dataset" (created by CODH), adapted from "Kuzushiji Dataset" '
    "(created by NIJL and others), doi:10.20676/00000341"
)
KUZUSHIJI_CITATION = (
    "T. Clanuwat, M. Bober-Irizar, A. Kitamoto, A. Lamb, K. Yamamoto, D. Ha: Deep learning for "
    "classical Japanese literature. 2018. arXiv:1812.01718"
)
KMNIST = CatalogEntry(
    name="kmnist",
    title="Kuzushiji-MNIST: ten hiragana in cursive script",
    publisher="codh.rois.ac.jp/kmnist",
    splits=_remote_splits("kmnist"),
    n_samples=70_000,
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    license="CC-BY-SA-4.0",
    license_details=KUZUSHIJI_LICENSE,
    citation=KUZUSHIJI_CITATION,
)
K49 = CatalogEntry(
    name="k49",
    title="Kuzushiji-49: 48 hiragana and the iteration mark in cursive script",
    publisher="codh.rois.ac.jp/kmnist",
    splits=_remote_splits("k49"),
    n_samples=270_912,
    # In the order of Unicode, as k49_classmap.csv lists them.
    class_names=(
        *("a", "i", "u", "e", "o", "ka", "ki", "ku", "ke", "ko"),
        *("sa", "shi", "su", "se", "so", "ta", "chi", "tsu", "te", "to"),
        *("na", "ni", "nu", "ne", "no", "ha", "hi", "fu", "he", "ho"),
        *("ma", "mi", "mu", "me", "mo", "ya", "yu", "yo"),
        *("ra", "ri", "ru", "re", "ro", "wa", "wi", "we", "wo", "n", "iteration mark"),
    ),
    license="CC-BY-SA-4.0",
    license_details=KUZUSHIJI_LICENSE,
    citation=KUZUSHIJI_CITATION,
    kind="npz",
)
QMNIST = CatalogEntry(
    name="qmnist",
    title="QMNIST: MNIST made anew from NIST's files, with 60,000 test digits and all writers",
    publisher="github.com/facebookresearch/qmnist",
    splits=_remote_splits("qmnist"),
    n_samples=120_000,
    class_names=tuple(digits),
    license="BSD-3-Clause",
    license_details="BSD-3-Clause, copyright Facebook, Inc. and its affiliates",
    citation=(
        "C. Yadav, L. Bottou: Cold case: the lost MNIST digits. Advances in Neural Information "
        "Processing Systems 32, 2019. arXiv:1905.10498"
    ),
    kind="qmnist",
)
EMNIST_ARCHIVE = RemoteFile(
    dataset="emnist",
    name="gzip.zip",
    mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
    checksum="sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
    size=561_753_746,
)
EMNIST_MD5 = {
    "balanced-train-images": "4041b0d6f15785d3fa35263901b5496b",
    "balanced-train-labels": "7a35cc7b2b7ee7671eddf028570fbd20",
    "balanced-test-images": "6818d20fe2ce1880476f747bbc80b22b",
    "balanced-test-labels": "acd3694070dcbf620e36670519d4b32f",
    "byclass-train-images": "712dda0bd6f00690f32236ae4325c377",
    "byclass-train-labels": "ee299a3ee5faf5c31e9406763eae7e43",
    "byclass-test-images": "1435209e34070a9002867a9ab50160d7",
    "byclass-test-labels": "7a0f934bd176c798ecba96b36fda6657",
    "bymerge-train-images": "4a792d4df261d7e1ba27979573bf53f3",
    "bymerge-train-labels": "491be69ef99e1ab1f5b7f9ccc908bb26",
    "bymerge-test-images": "8eb5d34c91f1759a55831c37ec2a283f",
    "bymerge-test-labels": "c13f4cd5211cdba1b8fa992dae2be992",
    "digits-train-images": "d2662ecdc47895a6bbfce25de9e9a677",
    "digits-train-labels": "2223fcfee618ac9c89ef20b6e48bcf9e",
    "digits-test-images": "a159b8b3bd6ab4ed4793c1cb71a2f5cc",
    "digits-test-labels": "8afde66ea51d865689083ba6bb779fac",
    "letters-train-images": "8795078f199c478165fe18db82625747",
    "letters-train-labels": "c16de4f1848ddcdddd39ab65d2a7be52",
    "letters-test-images": "382093a19703f68edac6d01b8dfdfcad",
    "letters-test-labels": "d4108920cd86601ec7689a97f2de7f59",
    "mnist-train-images": "3663598a39195d030895b6304abb5065",
    "mnist-train-labels": "6c092f03c9bb63e678f80f8bc605fe37",
    "mnist-test-images": "fb51b6430fc4dd67deaada1bf25d4524",
    "mnist-test-labels": "ae7f6be798a9a5d5f2bd32e078a402dd",
}
# Fifteen small letters look like their capitals, so bymerge and balanced have them as one class.
MERGED_CLASSES = digits + ascii_uppercase + "abdefghnqrt"


def _emnist_entry(
    variant: str, description: str, n_samples: int, class_names: Sequence[str], first_label: int = 0
) -> CatalogEntry:
    members = []
    for split in ("train", "test"):
        for role, ending in (("images", "idx3-ubyte.gz"), ("labels", "idx1-ubyte.gz")):
            key = f"{variant}-{split}-{role}"
            member = f"gzip/emnist-{key}-{ending}"
            members.append(ArchiveMember(EMNIST_ARCHIVE, member, f"md5:{EMNIST_MD5[key]}"))
    return CatalogEntry(
        name=f"emnist-{variant}",
        title=f"EMNIST {description}",
        publisher="nist.gov/itl/products-and-services/emnist-dataset",
        splits=_splits(members),
        n_samples=n_samples,
        class_names=tuple(class_names),
        license="not stated",
        license_details="not stated by its publishers; derived from NIST Special Database 19",
        citation=(
            "G. Cohen, S. Afshar, J. Tapson, A. van Schaik: EMNIST: an extension of MNIST to "
            "handwritten letters. 2017. arXiv:1702.05373"
        ),
        first_label=first_label,
        kind="idx transposed",
    )


CATALOG = {
    entry.name: entry
    for entry in (
        MNIST,
        FASHION_MNIST,
        KMNIST,
        K49,
        QMNIST,
        _emnist_entry(
            "balanced", "Balanced: digits and letters, equally often", 131_600, MERGED_CLASSES
        ),
        _emnist_entry(
            "byclass",
            "ByClass: digits, capital and small letters",
            814_255,
            digits + ascii_uppercase + ascii_lowercase,
        ),
        _emnist_entry(
            "bymerge",
            "ByMerge: digits and letters, capital and small ones merged where they look alike",
            814_255,
            MERGED_CLASSES,
        ),
        _emnist_entry("digits", "Digits", 280_000, digits),
        _emnist_entry(
            "letters",
            "Letters: capital and small ones merged",
            145_600,
            ascii_lowercase,
            first_label=1,
        ),
        _emnist_entry("mnist", "MNIST: as many digits as in MNIST", 70_000, digits),
    )
}
