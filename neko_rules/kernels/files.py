"""Files: written whole or not at all, for other processes that look for them now."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; the folder is there.

    Args:
        path: of the file, which may be there already.
        content: a text is written as UTF-8.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
