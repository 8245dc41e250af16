"""Where recordings and transcripts are: a folder, or a bucket of S3, Google Cloud or Azure, through fsspec."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

S = TypeVar("S")
T = TypeVar("T")

# Seconds to wait before trying again. Clients of stores try several times themselves each time.
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)

# Requests at a time.
THREADS = 32

# These are answers, and no failures.
ANSWERS = (FileNotFoundError, IsADirectoryError, FileExistsError)


class StorageError(Exception):
    """A store that did not do what it was asked for, several times."""


def steadily(request: Callable[[], T]) -> T:
    """Tries a request until it works; at last a `StorageError`."""
    for wait in (*WAITS, None):
        try:
            return request()
        except ANSWERS:
            raise
        except Exception as error:
            if wait is None:
                raise StorageError(f"{type(error).__name__}: {error}") from error
            time.sleep(wait * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def in_threads(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What work makes of each item, in their order: many requests at a time, and no more in memory than there are of them."""
    items = iter(items)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := [*islice(items, 100 * THREADS)]:
            yield from pool.map(work, batch)


def file_system(uri: str) -> tuple[Any, str]:
    """The file system of a URI, which is kept, and the path in it. Lists are not kept: others write, too."""
    files, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    return files, path


def absolute(uri: str) -> str:
    """Names that mean the same on every machine."""
    return uri if "://" in uri else os.path.abspath(uri)


def version_of(uri: str) -> str:
    """What changes with a file: the store's etag, or size and time. Empty where there is none."""
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        return _local_version(path)
    try:
        return _version(steadily(lambda: fs.info(path)))
    except FileNotFoundError:
        return ""


def _version(info: dict[str, Any]) -> str:
    etag = info.get("ETag") or info.get("etag")
    return str(etag).strip('"') if etag else f"{info['size']}-{info.get('mtime', '')}"


def files_below(uri: str) -> Iterator[tuple[str, str]]:
    """Every file in a folder or bucket, and its version. What begins with a dot is hidden, and passed over."""
    fs, root = file_system(uri)
    is_local = isinstance(fs, LocalFileSystem)
    folders = [root.rstrip("/")]
    seen = set[str]()
    while folders:
        folder = folders.pop()
        if is_local:
            # Links may lead back.
            if os.path.realpath(folder) in seen:
                continue
            seen.add(os.path.realpath(folder))
        infos = steadily(lambda: fs.ls(folder, detail=True, refresh=True))
        deeper: list[str] = []
        for info in sorted(infos, key=lambda info: str(info["name"])):
            name = info["name"].rstrip("/")
            if name == folder or name.rsplit("/", 1)[-1].startswith("."):
                continue
            if info["type"] == "directory" or (is_local and os.path.isdir(name)):
                deeper.append(name)
            elif is_local:
                yield name, _local_version(name)
            else:
                yield f"{uri.split('://')[0]}://{name}", _version(info)
        folders += reversed(deeper)


def _local_version(path: str) -> str:
    """Of what a link leads to; where there is none, empty."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return ""
    return f"{about.st_size}-{about.st_mtime_ns}"


def names_in(uri: str, folder: str, ending: str) -> list[str]:
    """The files of a folder below a URI with such an ending, by their names below the URI: none without the folder."""
    fs, root = file_system(uri)
    try:
        paths = steadily(lambda: fs.ls(f"{root}/{folder}", detail=False, refresh=True))
    except FileNotFoundError:
        return []
    names = [path.rsplit("/", 1)[-1] for path in paths]
    return [f"{folder}/{name}" for name in names if name.endswith(ending) and not name.startswith(".")]


def transcripts_below(uri: str) -> Iterator[str]:
    """The names of the transcripts that are there, as `Job.object_of` has them."""
    for names in in_threads(lambda number: names_in(uri, f"{number:02x}", ".json"), range(256)):
        yield from names


def read(uri: str) -> bytes:
    """What is in a file.

    Raises:
        FileNotFoundError: There is none.
        StorageError: It cannot be read.
    """
    fs, path = file_system(uri)
    return steadily(lambda: bytes(fs.cat_file(path)))


def create(uri: str, content: bytes) -> bool:
    """Writes a file that is not there yet, whole or not at all. `False` where it is there: nothing changes then.

    Raises:
        StorageError: It cannot be written.
    """
    fs, path = file_system(uri)

    def request() -> None:
        if isinstance(fs, LocalFileSystem):
            with _beside(path, content) as file:
                os.link(file, path)
            return
        try:
            fs.pipe_file(path, content, mode="create")
        except OSError as error:
            # What s3fs makes of a store that does not say which condition failed; there is only one.
            if error.errno == errno.EINVAL:
                raise FileExistsError(uri) from error
            raise

    try:
        steadily(request)
    except FileExistsError:
        return False
    return True


def replace(uri: str, content: Path) -> None:
    """Writes a file, whole or not at all, over what is there.

    Raises:
        StorageError: It cannot be written.
    """
    fs, path = file_system(uri)

    def request() -> None:
        if isinstance(fs, LocalFileSystem):
            with _beside(path, content.read_bytes()) as file:
                os.link(file, f"{file}.new")
                os.replace(f"{file}.new", path)
        else:
            fs.put_file(str(content), path)

    steadily(request)


def remove(uri: str) -> None:
    """Removes a file.

    Raises:
        StorageError: It cannot be removed.
    """
    fs, path = file_system(uri)
    try:
        steadily(lambda: fs.rm_file(path))
    except FileNotFoundError:
        pass


@contextmanager
def at_hand(uri: str) -> Iterator[str]:
    """A path where a recording can be read: its own, or that of a copy that has no name, and so is not left behind.

    Raises:
        FileNotFoundError: There is none.
        StorageError: It cannot be read.
    """
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        steadily(lambda: open(path, "rb").close())
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "recording")
        steadily(lambda: fs.get_file(path, copy))
        file = open(copy, "rb")
    with file:
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


@contextmanager
def _beside(path: str, content: bytes) -> Iterator[str]:
    """A file with this content in the same folder, for as long as this lasts."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o666 & ~_UMASK)
        yield file.name


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Asked for once: it can be read only by changing it for a moment, for all threads.
_UMASK = _umask()
