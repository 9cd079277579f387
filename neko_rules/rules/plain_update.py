"""Plain update: what becomes of a parameter by its gradient and nothing else, entry by entry, as one loop.

The gradient is clipped, the optimiser makes a change of it, and the weight decays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.clipping import EntryClipping
from neko_rules.kernels.elementwise import Formula, Loop, evaluated, kernel_of
from neko_rules.kernels.host import host_of
from neko_rules.layers.network import Network
from neko_rules.optimizers import Optimizer
from neko_rules.ours import is_ours
from neko_rules.rules.kept import Kept, Own
from neko_rules.rules.rule import Rule

DECAY = "decay"
"""Among the arguments of the loop of an update: of every parameter, its decay in units of the learning rate."""

FACTOR = "factor"
"""By what its change is multiplied."""


class PlainUpdate(NamedTuple):
    """What an update is made of.

    Attributes:
        optimizer: whose change it is.
        clipping: of the gradient; None for none.
        decays: whether any parameter does.
        scaled: whether the change of any parameter is multiplied.
    """

    optimizer: Optimizer
    clipping: EntryClipping | None
    decays: bool
    scaled: bool

    def changed(self, nx: Any, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """An entry, and what the optimiser remembers of it, after an update.

        Args:
            nx: backend of all.
            given: gradient ``"g"``, entry ``"p"``, what is remembered by slot, learning rate ``"rate"``, number of the
                update ``"t"``, ``DECAY``, ``FACTOR``, and where the clipping asks for it ``"norm"``.
        """
        found, before, rate = given["g"], given["p"], given["rate"]
        if self.clipping is not None:
            found = self.clipping.limited(nx, found, given.get("norm"))
        memory = tuple(given[slot] for slot in self.optimizer.slots)
        moved, memory = self.optimizer._change(nx, found, memory, before, rate, given["t"])
        moved = moved * given[FACTOR] if self.scaled else moved
        # Before the entry is added: 1 - rate·decay would round to 1 in float32.
        moved = moved - rate * given[DECAY] * before if self.decays else moved
        return before + moved, *memory

    def loop(self, key: Any, formula: Formula, updated: tuple[str, ...], dtype: str, step_dtype: str) -> Loop | None:
        """Such an update of all parameters; None where an operation of it has no scalar form.

        Args:
            key: what the formula depends on beside this.
            formula: of an entry: ``changed``, or what makes use of it.
            updated: names of more that is kept of every entry.
            dtype: of the parameters.
            step_dtype: of the number of the update.
        """
        norm = "" if self.clipping is None else self.clipping.norm
        arrays, scalars = ("g", "p", *self.optimizer.slots, *updated), {"rate": dtype, "t": step_dtype}
        key = self, type(self.optimizer)._change, key
        return kernel_of(key, formula, arrays, scalars, dtype, of_each=(DECAY, FACTOR), norm=norm)


@lru_cache(maxsize=64)
def plain_loop(update: PlainUpdate, change: Callable[..., Any], dtype: str, step_dtype: str) -> Loop | None:
    """The loop of an update that is this alone, and of its optimiser's ``_change``; as ``PlainUpdate.loop``."""
    return update.loop((), update.changed, (), dtype, step_dtype)


@lru_cache(maxsize=256)
def _is_plain(rule: Any, network: Any) -> bool:
    """Whether classes leave an update what its loop makes of it."""
    asked = "_limited", "_decaying", "_decays", "_bounded"
    plain = all(getattr(rule, name) is getattr(Rule, name) for name in asked)
    # A loop is that of an update only if both were written together.
    updates, loops = (next(c for c in rule.__mro__ if name in vars(c)) for name in ("applied", "update_loop"))
    return plain and updates is loops and network.within_bounds is Network.within_bounds


class UpdatedByLoop(Rule):
    """A rule whose update is one loop over entries wherever there is nothing else to it; for the engine."""

    @property
    def updates_plainly(self) -> bool:
        """Whether an update is what its loop makes of a gradient, and nothing else."""
        network = self.model.network
        own: Any = type(self)
        of: Any = type(network)
        if not _is_plain(own, of) or self._follows or network.learned:
            return False
        return self.update_loop("float64") is not None

    @property
    def _follows(self) -> bool:
        """Whether the rule's own arrays change with an update, beside those in ``updated``."""
        return type(self)._follow is not Rule._follow

    @property
    def updated(self) -> tuple[str, ...]:
        """Of the rule's own arrays, the groups with one for every parameter that an update changes."""
        return ()

    @property
    def plain_update(self) -> PlainUpdate | None:
        """What becomes of an entry; None where a user's optimiser or clipping asks for whole gradients."""
        clipping = self.clipping
        if not self.optimizer.by_entry:
            return None
        if clipping is not None and not (isinstance(clipping, EntryClipping) and is_ours(clipping)):
            return None
        return PlainUpdate(self.optimizer, clipping, self._ever_decays, bool(self.rate_factors))

    @property
    def of_each(self) -> list[np.ndarray]:
        """The decay and the factor of every parameter, as ``update_loop`` takes them."""
        names, dtype = self.model.network.values, self.model.network.dtype
        decays = np.array([self._scaled_decay(name) for name in names], dtype)
        return [decays, np.array([self.rate_factors.get(name, 1.0) for name in names], dtype)]

    def update_loop(self, step_dtype: str) -> Loop | None:
        """An update as one loop; None where an operation of it has no scalar form.

        From the gradient, the parameter, the optimiser's memory and ``updated`` it makes those after the update.

        Args:
            step_dtype: of the number of the update.
        """
        update, change = self.plain_update, type(self.optimizer)._change
        return None if update is None else plain_loop(update, change, self.model.network.dtype, step_dtype)

    def applied(
        self,
        values: Parameters,
        own: Own,
        memory: dict[str, Parameters],
        drawn: Parameters,
        found: Parameters,
        rate: Array,
        count: Array,
    ) -> Kept:
        """As for ``Rule``."""
        host = host_of(self.nx)
        same = type(self).update_loop is UpdatedByLoop.update_loop and host is not None and self.updates_plainly
        loop = self.update_loop("float64") if same else None
        if host is None or loop is None:
            return super().applied(values, own, memory, drawn, found, rate, count)
        slots = self.optimizer.slots
        groups = found, values, *(memory[slot] for slot in slots)
        arrays = [[group[name] for name in values] for group in groups]
        rows, finite = evaluated(host, loop, arrays, (rate, count), len(groups) - 1, self.of_each)
        after, *kept = (dict(zip(values, row, strict=True)) for row in rows)
        return Kept(after, own, dict(zip(slots, kept, strict=True)), finite)
