"""What a data set is: a value that loads training and test examples, and the registry of all of them."""

from __future__ import annotations

import numpy as np

from neko_rules.registry import Registry

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training inputs, training targets, test inputs, test targets."""


class Dataset:
    """Examples to train on and examples to test on.

    Inputs are float32 arrays [examples, time, feature]. Targets are int64 classes, [examples] or per time step
    [examples, time] (where -1 means that the step is not supervised), or float32 values
    [examples, outputs] or [examples, time, outputs].

    The same arguments always load the same arrays: a data set that draws random numbers has a ``seed``.

    Example:
        >>> from neko_rules.datasets import DATASETS
        >>> x_train, y_train, x_test, y_test = DATASETS.resolve({"name": "mnist1d", "num_samples": 100}).load()
        >>> x_train.shape, y_train.shape, x_test.shape
        ((80, 40, 1), (80,), (20, 40, 1))
    """

    @property
    def task_type(self) -> str | None:
        """``"classification"`` or ``"regression"``; None where only the loaded targets can tell."""
        return None

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``."""
        raise NotImplementedError(f"{type(self).__name__} must define load()")


DATASETS = Registry("data set", Dataset)
