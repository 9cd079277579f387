"""ZIP archives: the members of interest, whole, each checked by its own checksum."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from neko_rules.errors import DataError


def read_archive(path: Path, pattern: str) -> dict[str, bytes]:
    """The contents of a ZIP archive's members, by their names without folders, in the order of the names.

    Nothing is written anywhere, so that an archive cannot put a file where it should not be.

    Args:
        path: the archive.
        pattern: a regular expression that the wanted members' names, with their folders, match as a whole.

    Raises:
        DataError: the file is missing, is no archive, is damaged, holds none of them, or two of the same name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "my.zip"
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("things/b.txt", b"second")
        ...         archive.writestr("things/a.txt", b"first")
        ...         archive.writestr("README.md", b"")
        ...     read_archive(path, "things/.*")
        {'a.txt': b'first', 'b.txt': b'second'}
    """
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir() or not re.fullmatch(pattern, member.filename):
                    continue
                name = member.filename.rsplit("/", 1)[-1]
                if name in found:
                    raise DataError(f"{path} must hold every file once", received=f"{name} twice")
                found[name] = archive.read(member)
    except FileNotFoundError:
        raise DataError(f"{path} must exist", works="put the file there") from None
    except OSError as error:
        raise DataError(f"{path} must be readable", received=error.strerror or str(error)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError: an encrypted member; NotImplementedError: a compression that Python does not know.
        raise DataError(
            f"{path} must be an undamaged ZIP archive",
            received=str(error) or "one that ends early",
            works="fetch it again",
        ) from None
    if not found:
        raise DataError(f"{path} must hold files named {pattern}", received="an archive without any")
    return dict(sorted(found.items()))
