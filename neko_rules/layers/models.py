"""Models in one line: stacks of layers with a leaky readout, and ALIF, LIF and RNN as their commonest forms."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neko_rules import arguments
from neko_rules.backend import Backend
from neko_rules.errors import ArgumentError, nearest
from neko_rules.initializers import Initializer
from neko_rules.layers.cell import CELLS, Cell, PerNeuron
from neko_rules.layers.connectivity import ConnectivityLike, connectivity
from neko_rules.layers.graph import INPUT, Connection, Population
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.layers.network import MODELS, Network
from neko_rules.layers.rate import LeakyReadoutCell, ReLUCell, TanhCell
from neko_rules.layers.shared_weights import SharedWeights
from neko_rules.registry import create

OUTPUT = "readout"

_MISSING: Any = object()


@dataclass(frozen=True)
class Layer:
    """One hidden layer of a stack: neurons, their feed-forward input and, if wanted, their recurrent weights.

    Args:
        cell: the neuron model, by name, mapping or object.
        size: how many neurons; left out, as many as its connectivity says, which a convolution does.
        recurrent: whether the neurons are connected among themselves, one step later.
        bias: whether each neuron has a trainable constant input.
        initializer: distribution of the first feed-forward weights.
        recurrent_initializer: distribution of the first recurrent weights.
        autapses: whether a neuron may be connected to itself.
        connectivity: which feed-forward weights are synapses: ``"dense"``, a probability, a matrix of zeros and ones,
            or a Connectivity by name, mapping or object.
        recurrent_connectivity: which recurrent weights are.

    Example:
        >>> Layer("lif", 64, recurrent=False).size
        64
        >>> Layer("lif", 64, connectivity={"name": "receptive_fields", "shape": [8, 8]}).recurrent_connectivity
        'dense'
    """

    cell: Cell | str | Mapping[str, Any]
    size: int | None = None
    recurrent: bool = True
    bias: bool = True
    initializer: Initializer | str | Mapping[str, Any] = "scaled_normal"
    recurrent_initializer: Initializer | str | Mapping[str, Any] = "scaled_normal"
    autapses: bool = False
    connectivity: ConnectivityLike = "dense"
    recurrent_connectivity: ConnectivityLike = "dense"

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", CELLS.resolve(self.cell))
        if self.size is None:
            object.__setattr__(self, "size", _neurons(self.connectivity))
        arguments.integer("size", self.size, at_least=1)
        arguments.flag("recurrent", self.recurrent)
        if arguments.flag("autapses", self.autapses) and not self.recurrent:
            raise ArgumentError("a layer with autapses is recurrent", received="autapses=True, recurrent=False")


@MODELS.register("stack")
class Stack(Network):
    """Hidden layers one above the other, each with neurons of its own, and a readout on top: leaky, or any neurons.

    Args:
        layers: Layers (or mappings of their arguments), the lowest first.
        outputs: number of output units.
        output_cell: neuron model of the outputs, by name, mapping or object; left out, a leaky readout.
        tau_readout: time constant of the leaky readout in seconds, by default 20 ms; 0 means no memory.
        readout_decay: κ given directly, instead of ``tau_readout``.
        readout_bias: whether the readout has a bias.
        readout_initializer: distribution of the readout's first weights.
        readout_connectivity: which weights of the readout are synapses, as for Layer.
        inputs, backend, dtype, task_type, readout, dt, seed: as for Network.

    The layers are called ``hidden`` (or ``hidden0``, ``hidden1``, … if there are several) and ``readout``; parameters
    are named ``hidden.input.weight``, ``hidden.recurrent.weight``, ``hidden.bias``, ``readout.input.weight``.

    Example:
        >>> stack = Stack([Layer("alif", 32), Layer("lif", 16, recurrent=False)], 10, inputs=28)
        >>> for name, value in stack.parameters.items():
        ...     print(f"{name:26}{value.shape}")
        hidden0.input.weight      (28, 32)
        hidden0.recurrent.weight  (32, 32)
        hidden0.bias              (32,)
        hidden1.input.weight      (32, 16)
        hidden1.bias              (16,)
        readout.input.weight      (16, 10)
        readout.bias              (10,)

    Outputs that spike, for the losses of spike counts, membranes and first spikes:

        >>> Stack([Layer("lif", 32)], 10, output_cell={"name": "lif", "tau_membrane": 10e-3}).spiking
        ('hidden', 'readout')

    Raises:
        ArgumentError: an argument is out of range, or the leak of the readout is given beside another output cell.
    """

    def __init__(
        self,
        layers: Sequence[Layer | Mapping[str, Any]],
        outputs: int,
        *,
        inputs: int | None = None,
        backend: str | Backend = "numpy",
        dtype: str = "float32",
        task_type: str = "classification",
        readout: str = "sequence",
        dt: float = 1e-3,
        seed: int = 0,
        output_cell: Cell | str | Mapping[str, Any] | None = None,
        tau_readout: PerNeuron | None = None,
        readout_decay: PerNeuron | None = None,
        readout_bias: bool = True,
        readout_initializer: Initializer | str | Mapping[str, Any] = "scaled_normal",
        readout_connectivity: ConnectivityLike = "dense",
    ) -> None:
        if not isinstance(layers, Sequence) or not layers:
            raise ArgumentError("a stack needs a list of at least one layer", received=layers)
        made = [create(Layer, layer) for layer in layers]
        populations: dict[str, Population] = {}
        connections: list[Connection] = []
        below = INPUT
        for place, layer in enumerate(made):
            name = "hidden" if len(made) == 1 else f"hidden{place}"
            assert layer.size is not None, "a layer knows its size"
            populations[name] = Population(layer.cell, layer.size, layer.bias)
            synapses = layer.connectivity
            connections.append(Connection(below, name, 0, layer.initializer, label="input", connectivity=synapses))
            if layer.recurrent:
                first, synapses = layer.recurrent_initializer, layer.recurrent_connectivity
                connections.append(Connection(name, name, 1, first, layer.autapses, connectivity=synapses))
            below = name
        cell = _output_cell(output_cell, tau_readout, readout_decay)
        populations[OUTPUT] = Population(cell, arguments.integer("outputs", outputs, at_least=1), readout_bias)
        to_output = Connection(below, OUTPUT, 0, readout_initializer, label="input", connectivity=readout_connectivity)
        connections.append(to_output)
        super().__init__(
            populations,
            connections,
            OUTPUT,
            inputs=inputs,
            backend=backend,
            dtype=dtype,
            task_type=task_type,
            readout=readout,
            dt=dt,
            seed=seed,
        )


def _neurons(given: ConnectivityLike) -> int:
    """How many neurons a connectivity leads to, which is known of those whose synapses share weights."""
    found = connectivity(given)
    if not isinstance(found, SharedWeights):
        raise ArgumentError(
            "a layer must be told its size, unless its connectivity says it, as a convolution does",
            received=f"no size, connectivity={given!r}",
            works="write for example Layer('lif', 128)",
        )
    return found.numbers().shape[1]


def _output_cell(
    cell: Cell | str | Mapping[str, Any] | None, tau: PerNeuron | None, decay: PerNeuron | None
) -> Cell | str | Mapping[str, Any]:
    """The neuron model of the outputs: the leaky readout unless another is given."""
    if tau is not None and decay is not None:
        raise ArgumentError(
            "readout_decay stands in the place of tau_readout, which would have no effect",
            received=f"tau_readout={tau!r} and readout_decay={decay!r}",
            works="give one of them",
        )
    if cell is None:
        return LeakyReadoutCell(membrane_decay=decay) if tau is None else LeakyReadoutCell(tau)
    if tau is not None or decay is not None:
        raise ArgumentError(
            "tau_readout and readout_decay belong to the leaky readout, which output_cell replaces",
            received=f"output_cell={cell!r}, tau_readout={tau!r}, readout_decay={decay!r}",
            works="give the time constant to the cell: output_cell={'name': 'lif', 'tau_membrane': 0.02}",
        )
    return cell


class _OneCellStack(Stack):
    """A stack whose hidden layers all have the same neuron model; its arguments are the cell's and the stack's."""

    cells: dict[str, type[Cell]] = {}
    """The neuron models to choose from; the first is the default."""
    choice: str = ""
    """The name of the argument that chooses, if there is a choice."""

    def __init_subclass__(cls) -> None:
        """Spell out the arguments, so that help, YAML and error messages know them."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = list(inspect.signature(_OneCellStack.__init__).parameters.values())[1:-1]
        own = [p.replace(default=inspect.Parameter.empty) if p.default is _MISSING else p for p in own]
        of_cell = [
            inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type)
            for f in dataclasses.fields(next(iter(cls.cells.values())))
            if f.init
        ]
        of_stack = [p for p in inspect.signature(Stack).parameters.values() if p.kind is keyword]
        chooser = [inspect.Parameter(cls.choice, keyword, default=next(iter(cls.cells)))] if cls.choice else []
        cls.__signature__ = inspect.Signature([*own, *chooser, *of_cell, *of_stack])  # type: ignore[attr-defined]

    def __init__(
        self,
        hidden: int | Sequence[int] = _MISSING,
        outputs: int = _MISSING,
        *,
        recurrent: bool = True,
        bias: bool = True,
        initializer: Initializer | str | Mapping[str, Any] = "scaled_normal",
        recurrent_initializer: Initializer | str | Mapping[str, Any] = "scaled_normal",
        autapses: bool = False,
        connectivity: ConnectivityLike = "dense",
        recurrent_connectivity: ConnectivityLike = "dense",
        **options: Any,
    ) -> None:
        known = self.__signature__.parameters  # type: ignore[attr-defined]
        for key in options:
            if key not in known:
                raise ArgumentError(f"{type(self).__name__} has no argument {key!r}", works=nearest(key, known))
        missing = [name for name, value in (("hidden", hidden), ("outputs", outputs)) if value is _MISSING]
        if missing:
            raise ArgumentError(
                f"{type(self).__name__} needs numbers of neurons and outputs",
                received=f"no {' and no '.join(missing)}",
                works=f"write for example {type(self).__name__}(128, 10) for 128 neurons and 10 outputs",
            )
        default = next(iter(self.cells))
        chosen = arguments.choice(self.choice or "cell", options.pop(self.choice, default), tuple(self.cells))
        cell_class = self.cells[chosen]
        of_cell = {f.name for f in dataclasses.fields(cell_class) if f.init}
        cell = cell_class(**{key: value for key, value in options.items() if key in of_cell})
        several = isinstance(hidden, Iterable) and not isinstance(hidden, str)
        sizes: list[Any] = [*hidden] if several else [hidden]  # type: ignore[misc]
        for place, size in enumerate(sizes):
            arguments.integer(f"hidden[{place}]" if several else "hidden", size, at_least=1)
        of_layer = (recurrent, bias, initializer, recurrent_initializer, autapses, connectivity, recurrent_connectivity)
        layers = [Layer(cell, size, *of_layer) for size in sizes]
        super().__init__(layers, outputs, **{key: value for key, value in options.items() if key not in of_cell})


@MODELS.register("ALIF")
class ALIF(_OneCellStack):
    """Recurrent network of adaptive leaky integrate-and-fire neurons with a leaky readout (an LSNN).

    Args:
        hidden: number of neurons, or a list with the number in each layer.
        outputs: number of output units.
        recurrent, bias, initializer, recurrent_initializer, autapses, connectivity, recurrent_connectivity: as for
            Layer.
        tau_membrane, tau_adaptation, beta, threshold, …: every argument of ALIFCell.
        backend, dtype, task_type, readout, dt, seed, output_cell, tau_readout, …: every keyword of Stack.

    Example:
        >>> ALIF(128, 10, backend="numpy", task_type="classification", tau_adaptation=0.5)
        ALIF(hidden 128, readout 10; numpy, float32)
    """

    cells = {"alif": ALIFCell}


@MODELS.register("LIF")
class LIF(_OneCellStack):
    """Recurrent network of leaky integrate-and-fire neurons with a leaky readout.

    Args:
        hidden: number of neurons, or a list with the number in each layer.
        outputs: number of output units.
        recurrent, bias, initializer, recurrent_initializer, autapses, connectivity, recurrent_connectivity: as for
            Layer.
        tau_membrane, threshold, reset, …: every argument of LIFCell.
        backend, dtype, task_type, readout, dt, seed, output_cell, tau_readout, …: every keyword of Stack.

    Example:
        >>> LIF([64, 32], 2, recurrent=False)
        LIF(hidden0 64, hidden1 32, readout 2; numpy, float32)
    """

    cells = {"lif": LIFCell}


@MODELS.register("RNN")
class RNN(_OneCellStack):
    """Recurrent network of tanh or rectified linear rate units with a leaky readout (an Elman network).

    Args:
        hidden: number of units, or a list with the number in each layer.
        outputs: number of output units.
        activation: ``"tanh"`` or ``"relu"``.
        recurrent, bias, initializer, recurrent_initializer, autapses, connectivity, recurrent_connectivity: as for
            Layer.
        tau_membrane, membrane_decay: as for TanhCell.
        backend, dtype, task_type, readout, dt, seed, output_cell, tau_readout, …: every keyword of Stack.

    Example:
        >>> RNN(32, 3, activation="relu", task_type="regression")
        RNN(hidden 32, readout 3; numpy, float32)
    """

    cells = {"tanh": TanhCell, "relu": ReLUCell}
    choice = "activation"
