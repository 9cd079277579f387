"""Errors: every refusal is one sentence that states the rule, what was received, and what would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MISSING = object()


class NekoError(ValueError):
    """A refusal in one sentence: the rule, what was received, what would work.

    Args:
        rule: what must hold, naming the argument, file or key.
        received: the value that broke it.
        works: what would be accepted, or how to mend it.

    Example:
        >>> print(NekoError("learning_rate must be positive", received=-1.0, works="use for example 1e-3"))
        learning_rate must be positive (received: -1.0); use for example 1e-3.
    """

    def __init__(self, rule: str, received: object = _MISSING, works: str = "") -> None:
        sentence = rule.rstrip(". ")
        if received is not _MISSING:
            shown = received if isinstance(received, str) else repr(received)
            sentence += f" (received: {_shortened(shown)})"
        if works:
            sentence += f"; {works.rstrip('. ')}"
        super().__init__(sentence if sentence.endswith("?") else sentence + ".")


class ArgumentError(NekoError):
    """An argument of a public function or constructor is wrong."""


class DataError(NekoError):
    """An array, a label or a data file is wrong."""


class ConfigurationError(NekoError):
    """A YAML file, a key in it or a command-line setting is wrong."""


class BackendError(NekoError):
    """A backend is unknown, not installed, or cannot do what was asked of it."""


class IncompatibleError(NekoError):
    """A rule and a model, or two choices of a rule, do not fit together."""


class CheckpointError(NekoError):
    """A checkpoint or a run folder cannot be read, or belongs to another run."""


class ComparisonError(NekoError):
    """A comparison of gradients or backends would prove nothing, as of a network in which no neuron spikes."""


class NonFiniteError(NekoError):
    """A loss, gradient or parameter became NaN or infinite while training.

    Args:
        quantity: the name of a parameter or metric, such as ``hidden.recurrent.weight`` or ``loss``.
        step: the update, counted from 1 over all epochs, in which it happened.
        works: how to go on.
        epoch: the epoch, counted from 1, if there is one.

    Example:
        >>> print(NonFiniteError("hidden.bias", 7, works="use a smaller learning rate"))
        every loss, gradient and parameter must stay finite (received: NaN or infinity in hidden.bias at step 7);
        use a smaller learning rate.
    """

    def __init__(self, quantity: str, step: int, works: str = "", epoch: int | None = None) -> None:
        self.quantity, self.step, self.works, self.epoch = quantity, step, works, epoch
        where = f"step {step}" if epoch is None else f"step {step}, in epoch {epoch}"
        rule = "every loss, gradient and parameter must stay finite"
        super().__init__(rule, received=f"NaN or infinity in {quantity} at {where}", works=works)

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, int, str, int | None]]:
        # An exception is pickled with its sentence as the only argument, which would not bring this one back.
        return type(self), (self.quantity, self.step, self.works, self.epoch)


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence part that names the nearest known spelling, or all of them.

    Example:
        >>> nearest("epoch", ["epochs", "batch_size"])
        "did you mean 'epochs'?"
        >>> nearest("zzz", ["numpy", "torch"])
        "known: 'numpy', 'torch'"
    """
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).lower(), list(folded), n=1, cutoff=0.6)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return "known: " + ", ".join(repr(candidate) for candidate in known)


def _shortened(text: str, limit: int = 120) -> str:
    """Keep an error to one readable line."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
