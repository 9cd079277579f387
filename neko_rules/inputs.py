"""Inputs: what a user gives, checked, encoded where there is an encoder, and as a network takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neko_rules.encoders import Encoder
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.kernels.host import only_finite
from neko_rules.seeding import stream

if TYPE_CHECKING:
    from neko_rules.layers.network import Network


class Inputs(NamedTuple):
    """The way of data into a network.

    Args:
        network: the network.
        encoder: what makes spikes or currents of values first; None for data that are inputs already.
    """

    network: Network
    encoder: Encoder | None

    def check_fit(self) -> None:
        """Refuse an encoder for a model that takes each example as it is.

        Raises:
            IncompatibleError: the model has no time steps.
        """
        if self.encoder is not None and self.network.static:
            raise IncompatibleError(
                "an encoder makes inputs of several time steps, and this model takes each example as it is",
                received=self.encoder,
                works="leave the encoder out",
            )

    def checked(self, x: Any) -> np.ndarray:
        """The data as an array of finite numbers that can be encoded; the network is built for them.

        Returns:
            [batch, time, feature]; [batch, …] for a static model, or where there is an encoder.

        Raises:
            DataError: wrong number of axes, NaN or infinite values, or what the encoder does not take.
        """
        if isinstance(x, np.ma.MaskedArray):
            raise DataError("x must not be masked", received="a masked array", works="label what is not to count -1")
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise DataError("x must be a rectangular array of numbers", received=str(error)) from error
        if array.dtype.kind not in "iufb":
            works = "of an iterable give every batch by itself" if array.ndim == 0 and hasattr(x, "__iter__") else ""
            raise DataError("x must hold numbers", received=f"an array of type {array.dtype}", works=works)
        self._check_axes(array)
        if array.dtype.kind == "f" and not only_finite(array):
            wrong = np.argwhere(~np.isfinite(array))
            names = ("example", "step", "feature") if array.ndim == 3 else ("example", *("feature",) * (array.ndim - 1))
            place = ", ".join(f"{name} {index}" for name, index in zip(names, wrong[0], strict=True))
            raise DataError("x must be finite", received=f"{array[tuple(wrong[0])]} at {place}")
        if self.encoder is not None:
            self.encoder.check(array)
        self.network.build(array.shape[1:] if self.network.static else self.shape(array)[2])  # type: ignore[arg-type]
        return array

    def _check_axes(self, array: np.ndarray) -> None:
        if self.encoder is not None or self.network.static:
            if array.ndim < 2:
                axes = "feature" if self.encoder is None else "value"
                raise DataError(f"x must have shape [batch, …{axes}]", received=f"shape {array.shape}")
        elif array.ndim != 3:
            works = ""
            if array.ndim == 2 or array.ndim == 4:
                works = "give the Evaluator an encoder, such as encoder={'name': 'rate', 'steps': 25}, for values"
                works += " without time steps"
            raise DataError("x must have shape [batch, time, feature]", received=f"shape {array.shape}", works=works)
        if 0 in array.shape:
            raise DataError("x must have at least one example, time step and feature", received=f"shape {array.shape}")

    def shape(self, array: np.ndarray) -> tuple[int, ...]:
        """The shape that checked data have once they are encoded."""
        return array.shape if self.encoder is None else (len(array), *self.encoder.shape(array.shape))

    def steps(self, array: np.ndarray) -> int:
        """How many time steps checked data have for the network."""
        return 1 if self.network.static else self.shape(array)[1]

    def encoded(self, array: np.ndarray, first: int = 0, update: int | None = None) -> np.ndarray:
        """Checked data as inputs [batch, time, feature].

        Args:
            array: as ``checked`` gives them.
            first: the number of the first example: what is drawn for an example depends on its number alone.
            update: the number of the update that they are for; what is drawn then depends on it instead.
        """
        if self.encoder is None:
            return array
        dt, seed = self.network.dt, self.encoder.draws_from
        if update is not None or seed is None:
            return self.encoder.encode(array, stream(seed or 0, f"update/{update}"), dt)
        draws = self.encoder.draws(array.shape)
        if draws is not None:
            return self._encoded_at_once(array, first, draws, seed)
        found: np.ndarray | None = None
        for place, example in enumerate(array):
            one = self.encoder.encode(example[None], stream(seed, f"example/{first + place}"), dt)
            found = np.empty((len(array), *one.shape[1:]), one.dtype) if found is None else found
            found[place] = one[0]
        assert found is not None, "there is at least one example"
        return found

    def _encoded_at_once(self, array: np.ndarray, first: int, draws: int, seed: int) -> np.ndarray:
        """Examples that take their numbers from one stream, in which each has a place of its own."""
        assert self.encoder is not None, "without one nothing is drawn"

        def before(example: int) -> np.random.Generator:
            # Streams of their own for examples that take more numbers or fewer, whose places would overlap.
            rng = stream(seed, f"examples/{draws}")
            rng.bit_generator.advance(example * draws)  # type: ignore[attr-defined]
            return rng

        rng = before(first)
        found = self.encoder.encode(array, rng, self.network.dt)
        if rng.bit_generator.state != before(first + len(array)).bit_generator.state:
            raise ArgumentError(
                f"an encoder draws as many numbers as it says, {draws} for an example of shape {array.shape[1:]}",
                received=f"another number by {type(self.encoder).__name__}",
                works="return None in draws(), where their number is not fixed",
            )
        return found

    def time_major(self, array: np.ndarray) -> np.ndarray:
        """Inputs in the model's type, as a view [time, batch, feature] of an array [batch, time, feature].

        Raises:
            DataError: they lie beyond the range of that type.
        """
        dtype = self.network.dtype
        if array.dtype != dtype:
            try:
                with np.errstate(over="raise"):
                    array = array.astype(dtype)
            except FloatingPointError as error:
                largest = f"{np.abs(array).max():g}"
                raise DataError(
                    f"x must lie within the range of {dtype}", received=f"values up to {largest}"
                ) from error
        return array[None] if self.network.static else array.transpose(1, 0, 2)
