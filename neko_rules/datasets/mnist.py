"""MNIST: handwritten digits, whose rows are read as time steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neko_rules.arguments import integer
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.download import download
from neko_rules.datasets.idx import read_idx
from neko_rules.errors import ArgumentError, DataError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

DIGESTS = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of each file's uncompressed content; gzip headers hold dates, so that compressed copies differ."""


@DATASETS.register("mnist")
@dataclass(frozen=True)
class MNIST(Dataset):
    """Handwritten digits by rows: 28 time steps of 28 pixels, 10 classes.

    Inputs are grey values from 0 to 1, [60000, 28, 28] for training and [10000, 28, 28] for testing, in the published
    order; targets are the digits 0 to 9.

    The four files are read from ``$NEKO_DATA_DIR/mnist`` if ``NEKO_DATA_DIR`` is set (nothing is then downloaded), and
    otherwise from ``neko_rules/mnist`` in ``$XDG_CACHE_HOME`` or ``~/.cache``, where they are downloaded once, about
    11 MB, and checked by their digests.

    Args:
        train_examples: load only the first so many training examples; None for all.
        test_examples: likewise for the test examples.

    Raises:
        ArgumentError: an argument is not a whole number of at least 1, or more than there are.
        DataError: a file is missing, damaged, or belongs to other data.

    References:
        Y. LeCun, L. Bottou, Y. Bengio & P. Haffner (1998), "Gradient-based learning applied to document recognition",
        Proceedings of the IEEE 86(11), 2278-2324.

    Example:
        >>> MNIST(train_examples=1000)
        MNIST(train_examples=1000, test_examples=None)
        >>> x_train, y_train, x_test, y_test = MNIST(train_examples=1000).load()  # doctest: +SKIP
        >>> x_train.shape  # doctest: +SKIP
        (1000, 28, 28)
    """

    train_examples: int | None = None
    test_examples: int | None = None

    def __post_init__(self) -> None:
        for name in ("train_examples", "test_examples"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), at_least=1)

    @property
    def task_type(self) -> str:
        """Always ``"classification"``."""
        return "classification"

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``, downloaded first if need be."""
        paths = [_located(name) for name in DIGESTS]
        x_train, y_train = _examples(paths[0], paths[1], "train_examples", self.train_examples)
        x_test, y_test = _examples(paths[2], paths[3], "test_examples", self.test_examples)
        return x_train, y_train, x_test, y_test


def _located(name: str) -> Path:
    """Where one of the four files lies on this machine, after a download if need be."""
    given = os.environ.get("NEKO_DATA_DIR")
    if given:
        path = Path(given).expanduser() / "mnist" / name
        if not path.is_file():
            raise DataError(
                f"{path} must exist because NEKO_DATA_DIR is set",
                works="put the file there, or unset NEKO_DATA_DIR so that it is downloaded",
            )
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return download([mirror + name for mirror in MIRRORS], cache / "neko_rules" / "mnist" / name, DIGESTS[name])


def _examples(images_path: Path, labels_path: Path, argument: str, wanted: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images scaled to 0…1 and their labels, the first ``wanted`` of them."""
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (28, 28):
        raise DataError(f"{images_path} must hold images of 28 by 28 pixels", received=list(images.shape))
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} and {labels_path.name} must hold equally many examples",
            received=f"{len(images)} images and {len(labels)} labels",
            works="fetch both files again",
        )
    if len(labels) == 0 or labels.max() > 9:
        found = "no labels" if len(labels) == 0 else f"the label {labels.max()} at example {int(labels.argmax())}"
        raise DataError(f"{labels_path} must hold the digits 0 to 9", received=found)
    if wanted is not None and wanted > len(labels):
        raise ArgumentError(f"{argument} must be at most {len(labels)}, the examples there are", received=wanted)
    x = images[:wanted].astype(np.float32) / np.float32(255)
    return x, labels[:wanted].astype(np.int64)
