"""Leaking: an error that goes through recurrent weights without the part of it that only decays.

The error of a neuron with one leak λ for all neurons is

    δ_t = λ δ_{t+1} + s_t

and dense, though s_t is zero wherever the surrogate gradient is. What recurrent weights make of it leaks alike,

    δ_t V = λ (δ_{t+1} V) + s_t V

so that the sum over neurons is kept from step to step, and only s goes through the matrix, while V is the same.
"""

from __future__ import annotations

import re
from dataclasses import replace

from neko_rules.credit.traced import TracedStep
from neko_rules.kernels.writer import Carried

_OPERATION = re.compile(r"(\w+) ([*+]) (\w+)")


def without_leak(step: TracedStep) -> tuple[TracedStep, dict[str, str]]:
    """A step whose errors go through matrices without what decays, and what the product of each is multiplied by.

    That is, by the name of what is carried, the argument of a kernel or a number; it is empty, and the error goes
    through whole, where neurons do not leak, or each by a number of its own, or matrices differ from step to step.

    Args:
        step: one step back.
    """
    constants = [one for stage in step.stages for one in stage.constants]
    scalars = {one.traced: one.name for one in constants if not one.per_neuron}
    written = dict(statement.split(" = ", 1) for statement in step.body.statements)
    carried = {one.name: one for stage in step.stages for one in stage.carried}
    before = {name: each.result for name, each in carried.items()}
    added: dict[str, list[str]] = {}
    leaks: dict[str, str] = {}
    for name in dict.fromkeys(gathered.of for stage in step.stages for gathered in stage.gathered):
        found = None if step.varying else _parted(written, before, before[name], scalars)
        # What is looked at beside the products is needed whole.
        if found is None or any(name in re.findall(r"\w+", each) for each in written.values()):
            leaks[name] = ""
            continue
        rest, scale, leaks[name] = found
        begin, whole = len(step.body.statements), step.body.argument(rest)
        carried[name] = Carried(name, (step.body.argument(scale) * whole if scale else whole).name)
        added[name] = step.body.statements[begin:]
    stages = tuple(
        replace(
            stage,
            carried=[carried[one.name] for one in stage.carried],
            statements=[*stage.statements, *(each for one in stage.carried for each in added.get(one.name, []))],
        )
        for stage in step.stages
    )
    return replace(step, stages=stages), leaks


def _operands(written: dict[str, str], name: str, operator: str) -> list[tuple[str, str]]:
    """The two operands of a value, either way round, if it is made by that operator."""
    match = _OPERATION.fullmatch(written.get(name, ""))
    if match is None or match[2] != operator:
        return []
    return [(match[1], match[3]), (match[3], match[1])]


def _parted(
    written: dict[str, str], carried: dict[str, str], error: str, scalars: dict[str, str]
) -> tuple[str, str, str] | None:
    """What of an error does not decay, the constant that all of it is scaled by, and the leak."""
    wholes = [("", error), *((scale, of) for scale, of in _operands(written, error, "*") if scale in scalars)]
    for scale, whole in wholes:
        for later, rest in _operands(written, whole, "+"):
            handed_on = carried.get(later, "")
            if handed_on == whole:
                return rest, scale, "1"
            for leak, of in _operands(written, handed_on, "*"):
                if leak in scalars and of == whole:
                    return rest, scale, scalars[leak]
    return None
