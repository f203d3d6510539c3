"""Where the files of each data set come from, and the hashes by which they are known.

A folder of one's own holds one folder per data set, with the files under their published names:

    mnist/, fashion-mnist/    the four IDX files, gzip-compressed: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner,
                              "Gradient-based learning applied to document recognition", 1998; H. Xiao, K. Rasul,
                              R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747
    cifar10/, cifar100/       cifar-10-binary.tar.gz and cifar-100-binary.tar.gz, or the .bin files in them:
                              A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009
    cifar10-jpeg/             train.npz and test.npz: CIFAR-10 re-encoded as JPEG, sorted by class; folder only

IDX files are known by the hash of their uncompressed content, for they may have been compressed anew. No hashes
are published for the single .bin files: their lengths and labels are checked instead.
"""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from experiments.data.formats import damaged
from ufm._support.progress import progress_bar

_OWN_FOLDER = "set UFM_DATA_DIR to a folder that has it"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file of a data set; hashes are "md5:..." or "sha256:...".

    `published` is the hash of the file as it is published, `content` that of what it holds uncompressed.
    """

    file: str
    published: str | None = None
    content: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue: its classes, the shapes of its images, its format and its files.

    `parts` are the files that stand in for the one archive in `files` where a folder holds them unpacked,
    either beside the archive's place or in its folder `inside`.
    """

    class_names: tuple[str, ...]
    train: int
    test: int
    image: tuple[int, int, int]
    format: str
    files: tuple[Source, ...]
    parts: tuple[Source, ...] = ()
    inside: str = ""


@dataclass(frozen=True)
class Files:
    """The files to read a data set from; `download` says whether they are the cache's own copies."""

    name: str
    entry: Entry
    sources: tuple[Source, ...]
    paths: tuple[Path, ...]
    download: bool


def _idx_files(url: str, *hashes: tuple[str, str]) -> tuple[Source, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return tuple(
        Source(f"{name}.gz", f"md5:{published}", f"md5:{content}", f"{url}/{name}.gz")
        for name, (published, content) in zip(names, hashes, strict=True)
    )


_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# fmt: off
_CIFAR100 = tuple("""
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
""".split())  # noqa: SIM905
# fmt: on
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz"

CATALOGUE: dict[str, Entry] = {
    "mnist": Entry(
        class_names=tuple(map(str, range(10))),
        train=60_000,
        test=10_000,
        image=(1, 28, 28),
        format="idx",
        files=_idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    "fashion-mnist": Entry(
        class_names=_FASHION,
        train=60_000,
        test=10_000,
        image=(1, 28, 28),
        format="idx",
        files=_idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
    ),
    "cifar10": Entry(
        class_names=_CIFAR10,
        train=50_000,
        test=10_000,
        image=(3, 32, 32),
        format="cifar10",
        files=(
            Source(
                "cifar-10-binary.tar.gz",
                published="md5:c32a1d4ab5d03f1284b67883e8d87530",
                url=f"{_KRIZHEVSKY}/cifar-10-binary.tar.gz",
            ),
        ),
        parts=tuple(Source(f"{name}.bin") for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")),
        inside="cifar-10-batches-bin",
    ),
    "cifar10-jpeg": Entry(
        class_names=_CIFAR10,
        train=50_000,
        test=10_000,
        image=(3, 32, 32),
        format="jpeg",
        files=(
            Source("train.npz", published="sha256:e5c1765be5505dd62951dabbce276a61fe46064046307cc15d272ce729fc8e28"),
            Source("test.npz", published="sha256:d93e82204a66eb7e920b231cfb359b655802959e1c97399d249494a52466a087"),
        ),
    ),
    "cifar100": Entry(
        class_names=_CIFAR100,
        train=50_000,
        test=10_000,
        image=(3, 32, 32),
        format="cifar100",
        files=(
            Source(
                "cifar-100-binary.tar.gz",
                published="md5:03b5dce01913d631647c71ecec9e9cb8",
                url=f"{_KRIZHEVSKY}/cifar-100-binary.tar.gz",
            ),
        ),
        parts=(Source("train.bin"), Source("test.bin")),
        inside="cifar-100-binary",
    ),
}


def cache_folder() -> Path:
    """Return the folder for downloads and decoded images: UFM_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get("UFM_CACHE_DIR")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("ufm"))


def locate(name: str, folder: str | Path | None, cache: Path) -> Files:
    """Return the files of the data set `name`: in `folder`, else in UFM_DATA_DIR, else as downloads in `cache`.

    Raises ValueError if a folder is given and lacks one of them. Nothing is read or downloaded.
    """
    entry = CATALOGUE[name]
    root = folder if folder is not None else os.environ.get("UFM_DATA_DIR") or None
    if root is None:
        if any(source.url is None for source in entry.files):
            raise ValueError(f"{name}: got no folder, expected one, for it cannot be downloaded; {_OWN_FOLDER}")
        paths = tuple(cache / "downloads" / name / source.file for source in entry.files)
        return Files(name, entry, entry.files, paths, download=True)
    home = Path(root) / name
    choices = [(home, entry.files)]
    if entry.parts:
        choices += [(home, entry.parts), (home / entry.inside, entry.parts)]
    for place, sources in choices:
        if any((place / source.file).exists() for source in sources):
            break
    else:
        place, sources = choices[0]
    paths = tuple(place / source.file for source in sources)
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{name}: got no file {path}, expected it in the data folder {root}")
    return Files(name, entry, sources, paths, download=False)


def obtain(files: Files) -> list[str]:
    """Download what is to be downloaded, check every file, and return their hashes ("md5:...").

    Raises ValueError for a file that is not the published one and OSError for a download that fails.
    Only the cache's own copies are ever replaced.
    """
    if files.download:
        for source, path in zip(files.sources, files.paths, strict=True):
            _download(files.name, source, path)
    return [_checked(source, path) for source, path in zip(files.sources, files.paths, strict=True)]


def _download(name: str, source: Source, path: Path) -> None:
    """Fetch `source` to `path` unless the file is there already and has the published hash."""
    import pooch

    def fetch(url: str, target: str, _: object) -> None:
        with progress_bar(0, source.file, unit="B") as bar:
            pooch.HTTPDownloader(progressbar=bar)(url, target, None)  # pyright: ignore[reportArgumentType]

    assert source.url is not None
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            source.url,
            source.published,
            fname=path.name,
            path=path.parent,
            downloader=fetch,  # pyright: ignore[reportArgumentType]
        )
    except ValueError as error:
        raise ValueError(f"{name}: got a file from {source.url} that is not the published one ({error})") from error
    except OSError as error:
        raise OSError(f"{name}: the download of {source.url} failed ({error}); {_OWN_FOLDER}") from error


def _checked(source: Source, path: Path) -> str:
    """Return the hash of `path`, which ValueError says is not the expected one where one is known."""
    expected = source.content or source.published
    algorithm = expected.partition(":")[0] if expected else "sha256"
    digest = hashlib.new(algorithm)
    try:
        with gzip.open(path) if source.content else path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"damaged gzip data ({error})", "a complete gzip file") from error
    found = f"{algorithm}:{digest.hexdigest()}"
    if expected and found != expected:
        what = "content" if source.content else "file"
        raise damaged(path, f"{what} with {found}", expected)
    return found
