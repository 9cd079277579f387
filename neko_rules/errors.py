"""Errors: every refusal is one sentence that states the rule, what was received, and what would work."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

_MISSING = object()

COUNTED = ("steps", "boundaries")
"""What of a schedule is a number of updates or epochs."""

SIMILAR, VERY_SIMILAR = 0.6, 0.75
"""Share of letters in common from which on a spelling is near: if the first letter is the same, and if it is not."""

SHORTEST = 3
"""Letters that a part of a name must have to stand for it."""

LEARNING_RATE = ("lr", "learning_rate", "learningrate")
"""How other libraries call the learning rate where they give it to what is not the optimiser."""

SCHEDULE = ("schedule", "scheduler", "lr_schedule", "lr_scheduler", "learning_rate_schedule", "learning_rate_scheduler")
"""How they call what here stands in the place of a learning rate."""


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
        super().__init__(_sentence(rule, received, works))


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


class NekoWarning(UserWarning):
    """What goes on otherwise than a user may think, in one sentence of the same form as a refusal."""


def warn(rule: str, received: object = _MISSING, works: str = "") -> None:
    """Warn of what is done otherwise than a user may think, at the line outside this package that led to it.

    Args:
        rule, received, works: as for NekoError.

    Example:
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     warn("weights must lie within ±w_max", received="2 of 8", works="they are cut")
        >>> print(said[0].message)
        weights must lie within ±w_max (received: 2 of 8); they are cut.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "neko_rules":
        level, frame = level + 1, frame.f_back
    warnings.warn(_sentence(rule, received, works), NekoWarning, stacklevel=level)


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence part that names the nearest known spelling, or all of them where none is near.

    A name that is a part of the other comes before one that differs in letters.

    Example:
        >>> nearest("epoch", ["epochs", "batch_size"])
        "did you mean 'epochs'?"
        >>> nearest("signal", ["spatial", "learning_signal"])
        "did you mean 'learning_signal'?"
        >>> nearest("cupy", ["numpy", "torch"])
        "known: 'numpy', 'torch'"
    """
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    given = str(name).lower()
    near = [each for each in folded if _holds(each, given)] if given not in folded else [given]
    if near:
        close = min(near, key=lambda each: abs(len(each) - len(given)))
        return f"did you mean {folded[close]!r}?"
    for each in difflib.get_close_matches(given, list(folded), n=1, cutoff=SIMILAR):
        if each[0] == given[0] or difflib.SequenceMatcher(None, each, given).ratio() >= VERY_SIMILAR:
            return f"did you mean {folded[each]!r}?"
    return "known: " + ", ".join(repr(candidate) for candidate in known)


def instead(argument: str, known: Iterable[str]) -> str:
    """The sentence part that says what to write in place of an argument that there is not.

    Example:
        >>> instead("lr", ["model", "mode", "optimizer"])
        "the learning rate belongs to the optimizer: optimizer={'name': 'adam', 'learning_rate': 1e-3}"
        >>> instead("lr", ["learning_rate", "beta_1"]), instead("mod", ["mode"])
        ("did you mean 'learning_rate'?", "did you mean 'mode'?")
        >>> instead("scheduler", ["learning_rate", "beta_1"])[:49]
        'a schedule stands in the place of a learning rate'
        >>> instead("epochs", ["initial", "steps", "final", "unit"])
        "give steps, which are epochs with unit='epochs'"
    """
    known = list(known)
    of_schedule = any(name in known for name in ("initial", "then", "values"))
    if argument.lower() in ("epoch", "epochs") and of_schedule and (counted := [c for c in COUNTED if c in known]):
        return f"give {counted[0]}, which are epochs with unit='epochs'"
    if argument.lower() in LEARNING_RATE:
        if "learning_rate" in known:
            return "did you mean 'learning_rate'?"
        if "optimizer" in known:
            return "the learning rate belongs to the optimizer: optimizer={'name': 'adam', 'learning_rate': 1e-3}"
    if argument.lower() in SCHEDULE:
        schedule = "'learning_rate': {'name': 'cosine_decay', 'initial': 1e-3, 'steps': 1000}"
        if "learning_rate" in known:
            return f"a schedule stands in the place of a learning rate: {schedule}"
        if "optimizer" in known:
            return f"a schedule is a learning rate of the optimizer: optimizer={{'name': 'adam', {schedule}}}"
    return nearest(argument, known)


def _holds(candidate: str, given: str) -> bool:
    """Whether one is a part of the other, and enough of it to be meant."""
    if len(given) >= SHORTEST and given in candidate:
        return True
    return len(candidate) >= SHORTEST and candidate in given and 2 * len(candidate) >= len(given)


def _sentence(rule: str, received: object, works: str) -> str:
    sentence = rule.rstrip(". ")
    if received is not _MISSING:
        shown = received if isinstance(received, str) else repr(received)
        sentence += f" (received: {_shortened(shown)})"
    if works:
        sentence += f"; {works.rstrip('. ')}"
    return sentence if sentence.endswith("?") else sentence + "."


def _shortened(text: str, limit: int = 120) -> str:
    """Keep an error to one readable line."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
