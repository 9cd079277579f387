"""Triton: the kernels for a GPU, run by Triton's interpreter, give the numbers of the engine that is not fused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cell_cases import VARIANTS
from credit_cases import data
from test_kernels import RULES, distance, network_of

pytest.importorskip("triton")
torch = pytest.importorskip("torch")

from neko_rules import BPTT, Evaluator  # noqa: E402
from neko_rules.backends.torch import TorchBackend  # noqa: E402
from neko_rules.credit.on_gpu import Launch  # noqa: E402
from neko_rules.kernels.host import unfused  # noqa: E402
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell  # noqa: E402
from neko_rules.rules import OTPE, ApproximateOTPE, EventProp, PPProp, SnAp  # noqa: E402

SAME = 1e-12


class Interpreted(TorchBackend):
    """PyTorch on the CPU that calls itself a GPU, whose kernels the interpreter runs."""

    in_host_memory = False
    in_gpu_memory = True


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available() and not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("where there is a GPU, set TRITON_INTERPRET=1 to run these kernels without it")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("label", VARIANTS)
def test_every_neuron(label: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backward: list[str] = []
    run = Launch.run

    def counted(self: Launch, *arguments: Any) -> Any:
        backward.extend(stage.name for stage in self.step.stages)
        return run(self, *arguments)

    monkeypatch.setattr(Launch, "run", counted)
    model = Evaluator(network_of(VARIANTS[label], backend=Interpreted()))  # type: ignore[arg-type]
    x, y = data()
    launched = RULES[rule](model).gradients(x, y)
    assert backward == ["readout", "hidden"]
    with unfused():
        plain = RULES[rule](model).gradients(x, y)
    assert distance(launched, plain) < SAME


@pytest.mark.parametrize("rule", [PPProp, OTPE, ApproximateOTPE, SnAp, EventProp])
@pytest.mark.parametrize("cell", [LIFCell(), ALIFCell(), ALIFCell(detach_reset=False, learnable=["threshold"])])
def test_factors_and_errors_that_stay_with_their_neurons(cell: Any, rule: Any) -> None:
    """What goes forward beside the neurons by operations, and back by kernels; and spikes that move in time."""
    model = Evaluator(network_of(cell, backend=Interpreted()))  # type: ignore[arg-type]
    x, y = data()
    launched = rule(model).gradients(x, y)
    with unfused():
        plain = rule(model).gradients(x, y)
    assert distance(launched, plain) < SAME


@pytest.mark.parametrize("make", [lambda: ALIFCell(learnable=["threshold", "membrane_decay"]), LIFCell])
def test_learnable_constants_and_single_precision(make: Callable[[], Any]) -> None:
    x, y = data()
    model = Evaluator(network_of(make(), size=300, backend=Interpreted(), dtype="float32"))  # type: ignore[arg-type]
    launched = BPTT(model).gradients(x, y)
    with unfused():
        plain = BPTT(model).gradients(x, y)
    assert max(float(np.abs(launched[k] - v).max()) for k, v in plain.items()) < 1e-4
