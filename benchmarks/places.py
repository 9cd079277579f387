"""Places: where a benchmark writes: among the docs if it has measured what they show, else to a folder of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Places(NamedTuple):
    """Files of a benchmark.

    Attributes:
        results: what was measured.
        figure: what is drawn of it.
    """

    results: Path
    figure: Path


def places(name: str, shown: bool, folder: Path | None = None, ending: str = ".json") -> Places:
    """Where to write.

    Args:
        name: of the files, without an ending.
        shown: whether all is measured that the docs show, and as it is shown there.
        folder: where to write instead; a new one, if nothing is given and the docs show something else.
        ending: of the results.
    """
    if shown and folder is None:
        found = Places(DOCS / "results" / f"{name}{ending}", DOCS / "figures" / f"{name}.png")
    else:
        folder = folder or Path(tempfile.mkdtemp(prefix=f"{name}_"))
        found = Places(folder / f"{name}{ending}", folder / f"{name}.png")
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
    return found
