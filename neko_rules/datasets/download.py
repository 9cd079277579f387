"""Downloads: a file from the first mirror that has it, checked by its digest, and there whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import secrets
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from neko_rules.errors import DataError

BLOCK = 1 << 16
"""Bytes read at a time: small enough for a smooth progress bar and a quick Ctrl-C."""


def download(urls: Sequence[str], target: Path, md5: str, *, timeout: float = 30.0) -> Path:
    """Fetch a file into ``target`` unless it is there already, checked by the digest of its content.

    Args:
        urls: the mirrors, in the order in which they are tried.
        target: where the file shall be; its folder is made if needed.
        md5: hexadecimal MD5 digest of the content; of the uncompressed content if the target's name ends in ``.gz``.
        timeout: seconds that a mirror may stay silent.

    Raises:
        DataError: no mirror gave a file with that digest, or the folder cannot be written.
    """
    compressed = target.suffix == ".gz"
    return fetch(urls, target, lambda path: _check_digest(path, md5, compressed=compressed), f"MD5 {md5}", timeout)


def fetch(
    urls: Sequence[str], target: Path, check: Callable[[Path], None], promise: str, timeout: float = 30.0
) -> Path:
    """Fetch a file into ``target`` unless it is there already.

    The bytes go to a temporary file in the folder of the target, which takes the target's name only when it has been
    checked, so that neither a failure nor Ctrl-C leaves anything behind.

    Args:
        urls: the mirrors, in the order in which they are tried.
        target: where the file shall be; its folder is made if needed.
        check: raises a DataError if the file at the path is not the wanted one.
        promise: what it checks, for the error.
        timeout: seconds that a mirror may stay silent.

    Raises:
        DataError: no mirror gave a file that passed the check, or the folder cannot be written.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the folder {target.parent} must be writable", received=error.strerror or str(error)) from None
    reasons = []
    for url in urls:
        # Its own name for every attempt: two processes may fetch the same file at once.
        partial = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
        try:
            _fetch(url, partial, target.name, timeout)
            check(partial)
            os.replace(partial, target)
            return target
        except (OSError, http.client.HTTPException, EOFError, zlib.error, DataError) as error:
            reasons.append(f"{urllib.parse.urlsplit(url).netloc}: {error}".rstrip("."))
        finally:
            partial.unlink(missing_ok=True)
    raise DataError(
        f"{target.name} must come whole and with {promise} from one of its {len(urls)} mirrors",
        received=" / ".join(reasons),
        works=f"check the network and try again, or put the file at {target}",
    )


def _fetch(url: str, partial: Path, label: str, timeout: float) -> None:
    """Copy the body of a response into a new file, showing progress."""
    with urllib.request.urlopen(url, timeout=timeout) as response, open(partial, "xb") as file:
        length = response.headers.get("Content-Length")
        declared = int(length) if length is not None and length.isdigit() else None
        received = _copy(response.read, file.write, declared, label)
    # A connection that closes early is no error to http.client when it is read in blocks.
    if declared is not None and received != declared:
        raise DataError(f"the answer must have {declared} bytes", received=f"{received}")


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], total: int | None, label: str) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    received = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"Downloading {label}", total=total)
        while block := read(BLOCK):
            write(block)
            received += len(block)
            progress.update(task, advance=len(block))
    return received


def _check_digest(path: Path, md5: str, *, compressed: bool) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != md5.lower():
        raise DataError("the MD5 digest differs", received=digest.hexdigest())
