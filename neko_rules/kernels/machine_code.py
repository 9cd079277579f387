"""Machine code: what Numba compiled, in a file on disk for every function, release and types of arguments.

Numba's own files are numbered, and an index that says which types have which number is written before the file is:
processes that compile one function for different types, or for a new release, at the same time may load each other's
code, or that of the release before. Files that are named after all that they depend on need no index.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from neko_rules.kernels.files import write_whole

_KEPT = 30 * 24 * 3600
"""Seconds for which code is kept that nobody loads: environments of several releases may share a folder."""


class MachineCode:
    """The files of a function, in the place of those that Numba would have.

    Args:
        replaced: Numba's files of the function.
        release: what the code belongs to, beside the function's own file and the version of Numba.
    """

    def __init__(self, replaced: Any, release: str) -> None:
        self.folder = Path(replaced._cache_path)
        self.function = str(replaced._index_name).removesuffix(".nbi")
        self.made_by = _digest((replaced._version, replaced._source_stamp, release))

    def path(self, key: Any) -> Path:
        """Where the code is, or will be.

        Args:
            key: as Numba has it: types of arguments, the processor, and the function's own instructions.
        """
        return self.folder / f"{self.function}.{self.made_by}.{_digest(key)}.nbc"

    def save(self, key: Any, data: Any) -> None:
        """Keep the code for a key, whole or not at all."""
        from numba.core.serialize import dumps

        write_whole(self.path(key), dumps(data))
        _forget_unused(self.folder)

    def load(self, key: Any) -> Any:
        """The code for a key; None if it is not there."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        # By the time of a file it is told when it was last of use; a folder that may only be read is left as it is.
        with suppress(OSError):
            os.utime(path)
        return pickle.loads(data)

    def flush(self) -> None:
        """Forget the code for all keys."""
        for path in self.folder.glob(f"{self.function}.{self.made_by}.*.nbc"):
            path.unlink(missing_ok=True)


@lru_cache(maxsize=16)
def _forget_unused(folder: Path) -> None:
    """Delete the machine code in a folder that nobody has loaded for long, and Numba's own; once in a process."""
    for path in folder.glob("*.nb[ci]"):
        # Another process may do the same, and a file may be somebody else's.
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _KEPT:
                path.unlink()


def _digest(of: Any) -> str:
    """Few letters that stand for what something prints as: types and numbers print as the same in every process."""
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]


def on_disk(function: Any, types: tuple[Any, ...]) -> bool:
    """Whether the code of a compiled function for arguments of these types is on disk.

    Args:
        function: compiled by ``kernel``.
        types: of its arguments, as Numba has them.
    """
    cache = function._cache
    files = cast(MachineCode, cache._cache_file)
    return files.path(cache._index_key(types, function.targetctx.codegen())).exists()
