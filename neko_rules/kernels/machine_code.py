"""Machine code: what Numba compiled, in a file on disk for every function, release and types of arguments.

Numba's own files are numbered, and an index that says which types have which number is written before the file is:
processes that compile one function for different types, or for a new release, at the same time may load each other's
code, or that of the release before. Files that are named after all that they depend on need no index.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from pathlib import Path
from typing import Any, cast

from neko_rules.kernels.files import write_whole

_KEPT = 30 * 24 * 3600
"""Seconds for which the code of other releases is kept: environments may share a folder."""


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
        self._forget_other_releases()

    def load(self, key: Any) -> Any:
        """The code for a key; None if it is not there."""
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        return pickle.loads(data)

    def flush(self) -> None:
        """Forget the code for all keys."""
        for path in self.folder.glob(f"{self.function}.{self.made_by}.*.nbc"):
            path.unlink(missing_ok=True)

    def _forget_other_releases(self) -> None:
        # A function may have moved to another line since, which is part of the name. Numba's index ends with .nbi.
        for path in self.folder.glob(f"{self.function.rpartition('-')[0]}-*.nb[ci]"):
            try:
                old = path.stat().st_mtime < time.time() - _KEPT
            except FileNotFoundError:
                continue
            if old and not path.name.startswith(f"{self.function}.{self.made_by}."):
                path.unlink(missing_ok=True)


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
