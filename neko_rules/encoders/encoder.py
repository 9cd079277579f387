"""Encoder: what turns values, such as the pixels of a picture, into what a network receives at every time step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.alike import Alike
from neko_rules.errors import DataError
from neko_rules.registry import Registry


@dataclass(frozen=True)
class Encoder(Alike, ABC):
    """A way from values to inputs [example, time, feature]; a pure function of both and of what is drawn.

    An encoder of your own says what it makes in ``shape`` and ``encode``, and is registered as any other:
    ``@ENCODERS.register("ramp")``. One that draws random numbers says from which seed (``draws_from``): a batch of
    training then has numbers of its own in every update, and an example of an evaluation always the same. Where it also
    says how many numbers it draws for an example (``draws``), all of a batch are drawn at once.
    """

    @property
    def draws_from(self) -> int | None:
        """The seed of what is drawn; None where nothing is."""
        return None

    def check(self, x: np.ndarray) -> None:
        """Refuse values that cannot be encoded.

        Args:
            x: [example, …], finite numbers.

        Raises:
            DataError: it says which values can be.
        """

    def draws(self, given: tuple[int, ...]) -> int | None:
        """How many numbers of 64 bits ``encode`` draws for every example, one example after the other.

        ``rng.random`` and ``rng.integers`` of NumPy's 64-bit integers over their whole range take one for each number.
        None where this is not so: in an evaluation each example is then encoded by itself.

        Args:
            given: the shape of values [example, …].
        """
        return None

    @abstractmethod
    def shape(self, given: tuple[int, ...]) -> tuple[int, int]:
        """How many time steps and features an example has once it is encoded.

        Args:
            given: the shape of values [example, …].
        """

    @abstractmethod
    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        """Inputs [example, time, feature].

        Args:
            x: values [example, …].
            rng: what is drawn from.
            dt: time step, seconds.
        """


ENCODERS: Registry[Encoder] = Registry("encoder", Encoder)  # type: ignore[type-abstract]


def features(given: tuple[int, ...]) -> int:
    """The number of values of an example."""
    return math.prod(given[1:])


def flat(x: np.ndarray) -> np.ndarray:
    """Values [example, value]."""
    return x.reshape(len(x), -1)


def require_fractions(x: np.ndarray, what: str) -> None:
    """Refuse values that do not lie between 0 and 1.

    Args:
        x: values.
        what: of the encoder, for the message.

    Raises:
        DataError: one is smaller or larger.
    """
    low, high = x.min(), x.max()
    if low < 0 or high > 1:
        raise DataError(
            f"{what} takes values from 0 to 1",
            received=f"values from {low:g} to {high:g}",
            works="scale x, for example (x - x.min()) / (x.max() - x.min())",
        )


def steps_of(given: Any) -> int:
    """A number of time steps, checked."""
    return arguments.integer("steps", given, at_least=1)
