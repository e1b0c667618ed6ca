"""Where stores lie: a folder on this machine or a shared disk, or a URI that fsspec opens."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from distributed_dd.durable import read_bytes, sha256_of, write_bytes
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError, UserError
from distributed_dd.locks import locked_when_free
from distributed_dd.places import cache_folder
from distributed_dd.secrecy import BLOT

Say = Callable[[str], None]
# They have no folders to be made, and making one there would make a bucket of a mistyped name.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss")
CHECK = "check address, credentials and network, and run the same command again: it goes on"


class Folder(Protocol):
    """Named contents, each written whole or not at all. Its text is its place, as a user types it."""

    def names(self) -> set[str]:
        """What is there; nothing where the folder does not exist."""
        ...

    def read(self, name: str) -> bytes:
        """One content.

        Raises:
            MissingInputError: it is not there.
        """
        ...

    def write(self, name: str, content: bytes) -> str:
        """Write or replace one content; returns its SHA-256."""
        ...

    def remove(self, name: str) -> None:
        """Remove one content, if it is there."""
        ...

    def set_aside(self, name: str, new_name: str) -> None:
        """Rename one content, or a folder with all that is in it, if it is there."""
        ...

    def path(self, name: str, sha256: str) -> Path:
        """A file on this machine with the content, whose checksum is to be checked by the caller."""
        ...

    def intact(self, name: str, sha256: str, num_bytes: int | None) -> bool:
        """Whether a content is what was written, as far as can be seen without fetching it."""
        ...

    def lock(self, say: Say) -> contextlib.AbstractContextManager[None]:
        """Hold the folder against others that write, or wait for them."""
        ...


class LocalFolder:
    """A folder that this machine mounts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def __getstate__(self) -> dict[str, Any]:
        # Processes on other nodes start in folders of their own.
        return {"_path": self._path.absolute()}

    def names(self) -> set[str]:
        return set(os.listdir(self._path)) if self._path.is_dir() else set()

    def read(self, name: str) -> bytes:
        return read_bytes(self._path / name)

    def write(self, name: str, content: bytes) -> str:
        return write_bytes(self._path / name, content)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def set_aside(self, name: str, new_name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path / name, self._path / new_name)

    def path(self, name: str, sha256: str) -> Path:
        return self._path / name

    def intact(self, name: str, sha256: str, num_bytes: int | None) -> bool:
        return sha256_of(self._path / name) == sha256

    def lock(self, say: Say) -> contextlib.AbstractContextManager[None]:
        """One process at a time; the lock goes with the process, however it ends."""
        return locked_when_free(self._path, "expert store", say)


class RemoteFolder:
    """A folder behind a URI such as ``s3://bucket/experts``; needs fsspec's package for that protocol.

    An object store replaces whole objects, and a record with its checksum is written after what it
    describes: what a kill leaves half-written is never taken for an expert. There is no lock; two
    that train the same experts write the same content, or the later one's.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._opened: Any = None

    def __str__(self) -> str:
        return self._uri

    def __getstate__(self) -> dict[str, Any]:
        return {"_uri": self._uri, "_opened": None}

    def names(self) -> set[str]:
        files, root = self._files()
        with self._user_errors("cannot be listed"):
            files.invalidate_cache()
            try:
                return {entry.rsplit("/", 1)[-1] for entry in files.ls(root, detail=False)}
            except FileNotFoundError:
                return set()

    def read(self, name: str) -> bytes:
        files, root = self._files()
        with self._user_errors(f"cannot be read ({name})"):
            try:
                return files.cat_file(f"{root}/{name}")
            except FileNotFoundError:
                raise MissingInputError(f"{self}/{name}", "there is no such object") from None

    def write(self, name: str, content: bytes) -> str:
        files, root = self._files()
        with self._user_errors(f"cannot be written ({name})"):
            if self._uri.partition("://")[0] not in OBJECT_STORES:
                files.makedirs(root, exist_ok=True)
            try:
                files.pipe_file(f"{root}/{name}", content)
            except FileNotFoundError as error:
                raise UserError(str(self), f"cannot be written ({name}): {error}", fix=CHECK) from None
        return hashlib.sha256(content).hexdigest()

    def remove(self, name: str) -> None:
        files, root = self._files()
        with self._user_errors(f"cannot be changed ({name})"), contextlib.suppress(FileNotFoundError):
            files.rm_file(f"{root}/{name}")

    def set_aside(self, name: str, new_name: str) -> None:
        files, root = self._files()
        with self._user_errors(f"cannot be changed ({name})"), contextlib.suppress(FileNotFoundError):
            files.mv(f"{root}/{name}", f"{root}/{new_name}", recursive=True)

    def path(self, name: str, sha256: str) -> Path:
        """The content in this machine's cache, fetched unless it is there whole."""
        path = cache_folder() / "experts" / f"{sha256}.safetensors"
        if not path.exists() or sha256_of(path) != sha256:
            write_bytes(path, self.read(name))
        return path

    def intact(self, name: str, sha256: str, num_bytes: int | None) -> bool:
        """By its size; its checksum is compared when it is fetched."""
        files, root = self._files()
        with self._user_errors(f"cannot be read ({name})"):
            return num_bytes is None or files.info(f"{root}/{name}")["size"] == num_bytes

    @contextlib.contextmanager
    def lock(self, say: Say) -> Iterator[None]:
        yield

    def _files(self) -> tuple[Any, str]:
        if self._opened is None:
            if BLOT in self._uri:
                problem = f"holds {BLOT}, which stands for a secret that is in no file"
                raise ConfigError(self._uri, problem, fix="give the address again; ${oc.env:NAME} takes in a variable")
            from fsspec.core import url_to_fs

            try:
                self._opened = url_to_fs(self._uri)
            except ImportError as error:
                raise MissingInputError(
                    self._uri,
                    f"needs a package: {error}",
                    fix="pip install it (s3fs for s3://, gcsfs for gs://)",
                ) from None
            except ValueError as error:
                raise ConfigError(
                    self._uri,
                    f"is no address that fsspec knows: {error}",
                    allowed="a folder, or s3://, gs://, ..",
                ) from None
        return self._opened

    @contextlib.contextmanager
    def _user_errors(self, problem: str) -> Iterator[None]:
        """Turn an error of a protocol's package into a `UserError` that says ``problem``."""
        try:
            yield
        except (UserError, IntegrityError):
            raise
        except FileNotFoundError:
            raise
        except Exception as error:  # every protocol's package has errors of its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(str(self), f"{problem}: {reason}", fix=CHECK) from error


def folder_at(place: str | Path) -> Folder:
    """The folder that a path, or a URI with ``://``, names."""
    text = str(place)
    if "://" not in text or text.startswith(("file://", "local://")):
        return LocalFolder(Path(text.split("://", 1)[-1]))
    return RemoteFolder(text)


def inside(place: str | Path, name: str) -> Folder:
    """The folder ``name`` in ``place``."""
    return folder_at(f"{str(place).rstrip('/')}/{name}")
