"""Downloads, from a server on this machine: kept, checked against what was published, and refused if they differ."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from experiments.data import load_data
from experiments.data.sources import CATALOGUE
from tests.helpers import datasets
from tests.helpers.datasets import IDX, check_tiny_mnist, flipped, state, tiny_cifar, tiny_mnist

cache, mnist = datasets.cache, datasets.mnist  # fixtures; every test here has the first


class Server:
    """A web server of the bytes in `files`, which counts what it is asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve the tiny MNIST and CIFAR-10, and point the catalogue at them."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Server()
    mnist_entry, files, _ = tiny_mnist()
    cifar_entry, _, archive = tiny_cifar("cifar10")
    for name, entry in (("mnist", mnist_entry), ("cifar10", cifar_entry)):
        sources = tuple(replace(source, url=f"{served.url}/{source.file}") for source in entry.files)
        monkeypatch.setitem(CATALOGUE, name, replace(entry, files=sources))
    served.files = {f"/{file}": content for file, content in files.items()}
    served.files[f"/{cifar_entry.files[0].file}"] = archive
    thread = threading.Thread(target=served.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join()


def test_downloads_are_kept(server: Server, cache: Path):
    values = tiny_mnist()[2]
    check_tiny_mnist(load_data("mnist"), values)
    assert sorted(server.asked) == sorted(f"/{name}" for name in IDX)
    assert load_data("cifar10").train_images.shape == (10, 3, 32, 32)
    server.asked.clear()
    check_tiny_mnist(load_data("mnist"), values)
    load_data("cifar10")
    # Without the decoded images the downloads still serve.
    for path in (cache / "decoded").rglob("*.npy"):
        path.unlink()
    check_tiny_mnist(load_data("mnist"), values)
    assert not server.asked


def test_a_damaged_download_is_fetched_again(server: Server, cache: Path):
    load_data("mnist")
    path = cache / "downloads" / "mnist" / IDX[2]
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    server.asked.clear()
    check_tiny_mnist(load_data("mnist"), tiny_mnist()[2])
    assert server.asked == [f"/{IDX[2]}"] and path.read_bytes() == good


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("damage", [lambda good: flipped(good, len(good) // 2), lambda good: good[:-1], lambda _: b""])
def test_tampered_downloads_are_refused(server: Server, cache: Path, name: str, damage: Callable[[bytes], bytes]):
    source = CATALOGUE[name].files[0]
    good = server.files[f"/{source.file}"]
    server.files[f"/{source.file}"] = damage(good)
    with pytest.raises(ValueError, match=rf"{name}: got a file from {source.url} that is not the published one .*md5"):
        load_data(name)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    server.files[f"/{source.file}"] = good
    assert load_data(name).name == name


def test_failed_downloads(server: Server, monkeypatch: pytest.MonkeyPatch):
    del server.files[f"/{IDX[0]}"]
    with pytest.raises(OSError, match=f"mnist: the download of {server.url}/{IDX[0]} failed .*404.*UFM_DATA_DIR"):
        load_data("mnist")
    entry = CATALOGUE["cifar10"]
    nobody = replace(entry.files[0], url="http://127.0.0.1:9/x.tar.gz")
    monkeypatch.setitem(CATALOGUE, "cifar10", replace(entry, files=(nobody,)))
    with pytest.raises(OSError, match="cifar10: the download of http://127.0.0.1:9/x.tar.gz failed .*UFM_DATA_DIR"):
        load_data("cifar10")


def test_a_folder_is_never_mended_by_a_download(server: Server, mnist):
    folder, _ = mnist
    path = folder / "mnist" / IDX[0]
    path.write_bytes(path.read_bytes()[:-1])
    before = state(folder)
    with pytest.raises(ValueError, match=IDX[0]):
        load_data("mnist", folder)
    assert state(folder) == before and not server.asked
