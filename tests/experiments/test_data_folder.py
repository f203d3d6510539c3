"""Data sets read from a folder of one's own, which is left as it is, and decoded once into the cache."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.data import ImageData, decoded, load_data
from experiments.data.formats import parse_cifar, read_jpeg_archive
from experiments.data.sources import CATALOGUE, Source
from tests.helpers import datasets
from tests.helpers.datasets import IDX, check_tiny_mnist, flipped, jpeg_arrays, state, tiny_cifar, tiny_mnist, write

cache, mnist = datasets.cache, datasets.mnist  # fixtures; every test here has the first


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("decoded again")


# A folder of one's own.


def test_files_compressed_anew_are_taken_from_a_folder(mnist, monkeypatch: pytest.MonkeyPatch):
    folder, values = mnist
    path = folder / "mnist" / IDX[0]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    before = state(folder)
    check_tiny_mnist(load_data("mnist", folder), values)
    monkeypatch.setenv("UFM_DATA_DIR", str(folder))
    data = load_data("mnist")
    check_tiny_mnist(data, values)
    assert data.num_classes == 10 and data.train_classes.dtype == torch.int64
    assert state(folder) == before


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda good: gzip.compress(flipped(gzip.decompress(good), 17)), "got content with md5:"),
        (lambda good: gzip.compress(gzip.decompress(good) + b"\0"), "got content with md5:"),
        (lambda good: good[:-3], "damaged gzip"),
        (lambda good: b"", "got content with md5:d41d8cd98f00b204e9800998ecf8427e"),
    ],
)
def test_other_files_in_a_folder_are_refused_and_left_alone(mnist, which: int, damage, message: str):
    folder, _ = mnist
    path = folder / "mnist" / IDX[which]
    path.write_bytes(damage(path.read_bytes()))
    before = state(folder)
    with pytest.raises(ValueError, match=f"{IDX[which]}: .*{message}"):
        load_data("mnist", folder)
    assert state(folder) == before


def test_missing_files_and_folders(mnist, tmp_path: Path, cache: Path):
    folder, _ = mnist
    (folder / "mnist" / IDX[3]).unlink()
    with pytest.raises(ValueError, match=f"mnist: got no file .*{IDX[3]}, expected it in the data folder"):
        load_data("mnist", folder)
    with pytest.raises(ValueError, match="cifar100: got no file .*cifar-100-binary.tar.gz"):
        load_data("cifar100", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cifar10-jpeg: got no folder, .*UFM_DATA_DIR"):
        load_data("cifar10-jpeg")
    assert not cache.exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", ["archive", "beside", "inside"])
def test_cifar_from_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, layout: str):
    entry, parts, archive = tiny_cifar(name)
    monkeypatch.setitem(CATALOGUE, name, entry)
    home = tmp_path / "data" / name
    if layout == "archive":
        write(home / entry.files[0].file, archive)
    else:
        for file, content in parts.items():
            write(home / (entry.inside if layout == "inside" else "") / file, content)
    before = state(home)
    data = load_data(name, tmp_path / "data")
    assert state(home) == before
    images, labels = zip(*(parse_cifar(content, "", data.num_classes) for content in parts.values()), strict=True)
    assert np.array_equal(data.train_images.numpy(), np.concatenate(images[:-1]))
    assert np.array_equal(data.train_classes.numpy(), np.concatenate(labels[:-1]))
    assert np.array_equal(data.test_images.numpy(), images[-1])
    assert np.array_equal(data.test_classes.numpy(), labels[-1])
    path = next(path for path in home.rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-1])
    before = state(home)
    with pytest.raises(ValueError, match=f"{path.name}: got .*, expected"):
        load_data(name, tmp_path / "data")
    assert state(home) == before
    if layout != "archive":
        path.unlink()
        with pytest.raises(ValueError, match=f"{name}: got no file .*{path.name}"):
            load_data(name, tmp_path / "data")


def test_cifar_parts_with_too_few_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    entry, parts, _ = tiny_cifar("cifar100")
    monkeypatch.setitem(CATALOGUE, "cifar100", replace(entry, train=3))
    for file, content in parts.items():
        write(tmp_path / "cifar100" / file, content)
    with pytest.raises(ValueError, match=r"training images: got shape \(2, 3, 32, 32\), expected \(3, 3, 32, 32\)"):
        load_data("cifar100", tmp_path)


def test_jpeg_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    home = tmp_path / "cifar10-jpeg"
    home.mkdir()
    for split, labels in (("train", [0, 0, 1, 2]), ("test", [0, 9])):
        np.savez(home / f"{split}.npz", **jpeg_arrays(np.random.default_rng(len(labels)), labels))
    with pytest.raises(ValueError, match=r"train\.npz: got file with sha256:.*, expected sha256:e5c1765b"):
        load_data("cifar10-jpeg", tmp_path)
    sources = tuple(
        Source(f"{split}.npz", "sha256:" + hashlib.sha256((home / f"{split}.npz").read_bytes()).hexdigest())
        for split in ("train", "test")
    )
    monkeypatch.setitem(CATALOGUE, "cifar10-jpeg", replace(CATALOGUE["cifar10-jpeg"], train=4, test=2, files=sources))
    data = load_data("cifar10-jpeg", tmp_path)
    assert data.train_classes.tolist() == [0, 0, 1, 2] and data.test_classes.tolist() == [0, 9]
    assert np.array_equal(data.train_images.numpy(), read_jpeg_archive(home / "train.npz", 10)[0])
    # Another decoder may give other pixels: what this one stored is not used.
    monkeypatch.setattr(decoded, "version", lambda _: "0")
    monkeypatch.setattr(decoded, "read_jpeg_archive", refuse)
    with pytest.raises(AssertionError, match="decoded again"):
        load_data("cifar10-jpeg", tmp_path)


# Decoding once.


def test_the_second_call_maps_what_the_first_decoded(mnist, monkeypatch: pytest.MonkeyPatch, cache: Path):
    folder, values = mnist
    load_data("mnist", folder)
    stored = state(cache)
    monkeypatch.setattr(decoded, "read_idx_split", refuse)
    monkeypatch.setattr(decoded, "obtain", refuse)
    data = load_data("mnist", folder)
    check_tiny_mnist(data, values)
    assert state(cache) == stored
    # Writing into the images reaches neither the file nor another reader.
    data.train_images.fill_(7)
    data.train_classes.fill_(7)
    assert state(cache) == stored
    check_tiny_mnist(load_data("mnist", folder), values)


def test_images_are_memory_mapped(mnist):
    folder, _ = mnist
    load_data("mnist", folder)
    stored = decoded.load_decoded(Path(os.environ["UFM_CACHE_DIR"]), decoded_files(folder))
    assert isinstance(stored.train_images, np.memmap) and isinstance(stored.test_images, np.memmap)
    data = load_data("mnist", folder)
    if sys.platform == "linux":
        spans = [
            tuple(int(end, 16) for end in line.split()[0].split("-"))
            for line in Path("/proc/self/maps").read_text().splitlines()
            if line.endswith("train_images.npy")
        ]
        assert any(start <= data.train_images.data_ptr() < stop for start, stop in spans)


def decoded_files(folder: Path):
    from experiments.data.sources import locate

    return locate("mnist", folder, Path(os.environ["UFM_CACHE_DIR"]))


def test_a_changed_source_is_checked_anew(mnist, monkeypatch: pytest.MonkeyPatch):
    folder, values = mnist
    load_data("mnist", folder)
    path = folder / "mnist" / IDX[1]
    # The same content at another time: hashed again, not decoded again, and then known.
    os.utime(path, ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "read_idx_split", refuse)
        check_tiny_mnist(load_data("mnist", folder), values)
        patch.setattr(decoded, "obtain", refuse)
        check_tiny_mnist(load_data("mnist", folder), values)
    good = path.read_bytes()
    path.write_bytes(gzip.compress(flipped(gzip.decompress(good), 10), mtime=0))
    with pytest.raises(ValueError, match=f"{IDX[1]}: got content with md5"):
        load_data("mnist", folder)


def test_new_content_is_decoded_beside_the_old(mnist, monkeypatch: pytest.MonkeyPatch, cache: Path):
    folder, _ = mnist
    load_data("mnist", folder)
    entry, files, values = tiny_mnist(seed=5)
    monkeypatch.setitem(CATALOGUE, "mnist", entry)
    for name, content in files.items():
        write(folder / "mnist" / name, content)
    check_tiny_mnist(load_data("mnist", folder), values)
    assert len(list((cache / "decoded").iterdir())) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 1))


def _extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _reshape(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def _pickle(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("name", ["train_images", "train_classes", "test_images", "test_classes"])
@pytest.mark.parametrize("damage", [_cut, _flip, _extend, _empty, _reshape, _pickle, Path.unlink])
def test_damaged_arrays_are_decoded_anew(mnist, cache: Path, name: str, damage: Callable[[Path], None]):
    folder, values = mnist
    load_data("mnist", folder)
    (path,) = (cache / "decoded").glob(f"*/{name}.npy")
    good = path.read_bytes()
    damage(path)
    check_tiny_mnist(load_data("mnist", folder), values)
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", '{"name": "mnist"}', {"mean": [None]}, {"std": "x"}, {"mean": []}]
)
def test_a_damaged_record_is_written_anew(mnist, cache: Path, text: str | dict | None):
    folder, values = mnist
    expected = load_data("mnist", folder)
    (path,) = (cache / "decoded").glob("*/record.json")
    good = path.read_text()
    if text is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(good) | text) if isinstance(text, dict) else text)
    data = load_data("mnist", folder)
    check_tiny_mnist(data, values)
    assert data.mean.equal(expected.mean) and data.std.equal(expected.std)
    assert path.read_text() == good


def test_a_failed_decoding_leaves_no_data_set(mnist, monkeypatch: pytest.MonkeyPatch, cache: Path):
    folder, values = mnist
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "channel_statistics", refuse)
        with pytest.raises(AssertionError):
            load_data("mnist", folder)
    assert not list(cache.rglob("record.json")) and not list(cache.rglob(".part.*"))
    check_tiny_mnist(load_data("mnist", folder), values)


def test_threads_decode_once(mnist, monkeypatch: pytest.MonkeyPatch):
    folder, values = mnist
    calls, start = [], threading.Barrier(4)
    build = decoded._build

    def counted(*arguments):
        calls.append(arguments)
        return build(*arguments)

    def load(_: int) -> ImageData:
        start.wait()
        return load_data("mnist", folder)

    monkeypatch.setattr(decoded, "_build", counted)
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(load, range(4)):
            check_tiny_mnist(data, values)
    assert len(calls) == 1


PROCESS = """
import sys, time
from pathlib import Path
from experiments.data import load_data
from experiments.data.sources import CATALOGUE
from tests.helpers.datasets import check_tiny_mnist, tiny_mnist
entry, _, values = tiny_mnist()
CATALOGUE["mnist"] = entry
me, other, folder = map(Path, sys.argv[1:])
me.touch()
while not other.exists():
    time.sleep(0.001)
check_tiny_mnist(load_data("mnist", folder), values)
"""


def test_two_processes_at_once(mnist, tmp_path: Path, cache: Path):
    folder, values = mnist
    flags = [tmp_path / "a", tmp_path / "b"]
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, order), str(folder)], cwd=root, stderr=subprocess.PIPE, text=True
        )
        for order in (flags, flags[::-1])
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    check_tiny_mnist(load_data("mnist", folder), values)
    assert not list(cache.rglob(".part.*"))
