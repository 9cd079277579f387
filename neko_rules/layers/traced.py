"""Traced cell: a cell's two functions written down as statements, from which a forward kernel is made."""

from __future__ import annotations

from collections.abc import Iterable

from neko_rules.kernels.tracing import Body, TracingBackend
from neko_rules.layers.cell import Cell, CellOperations, SlopeKeeping, namespace
from neko_rules.layers.jacobians import SLOPE


def traced_results(
    cell: Cell, constants: Iterable[str], body: Body, place: str = "", *, slope: bool = False
) -> dict[str, str]:
    """Traced names of the states and ``"z"`` after a step.

    What the statements are about is named ``s_state`` and ``s_z`` before the step, ``i_current``, and ``c_constant``;
    with a place among several populations, ``s0_state`` and so on.

    Args:
        cell: the neuron model.
        constants: names of its constants.
        body: where the statements are written.
        place: of the population among those that share the body.
        slope: whether ψ of its spike, of which there is one, is wanted too, as ``"slope"``.

    Raises:
        NotTraceableError: an operation has no scalar form.
    """
    states = cell.state_names()
    kind = SlopeKeeping if slope else CellOperations
    operations = kind(TracingBackend(body), cell.surrogate)  # type: ignore[arg-type]
    p = namespace({name: body.argument(f"c{place}_{name}") for name in constants})
    before = {key: body.argument(f"s{place}_{key}") for key in (*states, "z")}
    stepped = cell.update(operations, p, namespace(before), before["z"], body.argument(f"i{place}_current"))
    after = {key: body.value(stepped[key]) for key in states}
    emitted = body.value(cell.emit(operations, p, namespace(after)))
    results = {key: value.name for key, value in {**after, "z": emitted}.items()}
    if isinstance(operations, SlopeKeeping):
        results[SLOPE] = body.value(operations.slopes[-1]).name
    return results
