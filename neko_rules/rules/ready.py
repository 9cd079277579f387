"""Ready: a chain of windows with all that it is called with, kept from one call to the next.

It changes states, traces and parameters where they lie. What has to be looked up, laid out and handed over for a chain
takes ten times as long as a time step of a hundred neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.chains.running import Given, Plan, arguments
from neko_rules.kernels.host import BUFFERS
from neko_rules.kernels.parallel import each
from neko_rules.rules.chained import backs_of

if TYPE_CHECKING:
    from neko_rules.chains.linked import Linked, Told
    from neko_rules.rules.chained_pass import Carried
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.updates import LearningPlainly


class Ready(NamedTuple):
    """A chain with all that it is called with.

    Attributes:
        links, plan: the chain.
        given: what it is called with, in its order.
        places: where in it stands what, by argument.
        addresses: where what it calls lies.
        gradients: by parameter.
    """

    links: Linked
    plan: Plan
    given: list[Any]
    places: dict[str, int]
    addresses: np.ndarray
    gradients: dict[str, np.ndarray]

    def put(self, **arguments: Any) -> None:
        """Call it with something else from now on, where it takes that at all."""
        for name, value in arguments.items():
            place = self.places.get(name)
            if place is not None:
                self.given[place] = value

    def run(self, windows: tuple[int, int, int, int]) -> Told | None:
        """Go through windows; None, or what it tells, where it is not the chain for what it met.

        Args:
            windows: the number of the first and the one after the last, and the time step and the window that these
                are counted from.
        """
        ((size, (places, form)),), links, plan = self.plan.groups, self.links, self.plan

        def part(_: int, first: int, last: int) -> int:
            memories = BUFFERS.lent(form)
            called = first, last, size, self.addresses, places, *memories, *windows, *plan.sizes, *self.given
            return int(links.chain.run(*called))

        (told,) = each(part, plan.ranges)
        return links.told[told - 1] if told else None


def ready_chain(
    rule: LearningRule,
    given: Given,
    look: tuple[frozenset[str], bool],
    sizes: tuple[int, int],
    carried: Carried,
    updates: LearningPlainly,
    backs: dict[Any, np.ndarray],
    sums: Mapping[str, np.ndarray],
    more: Mapping[str, Any],
) -> Ready | None:
    """A chain with all that it is called with; None where there is none, or it cannot do all of an update.

    Args:
        rule: the rule, on NumPy.
        given: parameters, those that are changed where they lie, and data.
        look: what is taken to have few events, and whether those of the input are all 1.
        sizes: examples of a group, and time steps of a window.
        carried: what goes on from window to window.
        updates: what is learned on the way.
        backs: the matrices that carry errors back, by what they do: one of each for all chains, since the one that runs
            turns it anew after an update. More are put there.
        sums: how often every neuron fired, by population, [1, example, neuron], which it adds to.
        more: what else the chain takes, by argument.
    """
    chains, numpy, (group, steps) = rule.chains(), cast(Any, get_backend("numpy")), sizes
    links = chains.linked(rule, given, *look, carried.window)
    if links is None or not updates.looped(links):
        return None
    plan = chains.plan_of_windows(links, numpy, given, group, steps, carried)
    if len(plan.ranges) != 1:
        return None
    turned = backs_of(rule, numpy, given.values, updates.feedback, links)
    own = {name: backs.setdefault(links.backs[name], back) for name, back in turned.items()}
    every = arguments(links, plan, numpy, given, own) | carried.handed(links, looped=True)
    *gradients, whole = BUFFERS.lent(plan.gradients)
    by_name = dict(zip(links.gradients.values(), gradients, strict=False))
    changes = updates.changes(links, by_name, looped=True)
    every |= {name: sums[of] for name, of in links.spikes.items()}
    every |= dict(zip(links.gradients, gradients, strict=False)) | changes.given
    every |= {"gradients": whole, "before": True, "after": True, "telling": True, **more}
    addresses = links.chain.addresses.copy()
    addresses[links.update] = changes.address
    places = {name: place for place, name in enumerate(links.chain.given)}
    return Ready(links, plan, list(plan.given(every)), places, addresses, by_name)


def turn(rule: LearningRule, updates: LearningPlainly, links: Linked, backs: Mapping[Any, np.ndarray]) -> None:
    """Make the matrices that carry errors back from the parameters anew, where they lie."""
    numpy = cast(Any, get_backend("numpy"))
    for name, back in backs_of(rule, numpy, updates.values, updates.feedback, links).items():
        backs[links.backs[name]][...] = back
