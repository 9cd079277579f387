"""Exporting: the network of a run as a file that other simulators read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neko_rules.errors import ArgumentError, NekoError
from neko_rules.exchange import to_nir
from neko_rules.exchange.nir_library import nir_library
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.run import Experiment
from neko_rules.layers.graph import INPUT
from neko_rules.layers.network import Network
from neko_rules.probabilistic.sampling_rule import SamplingRule


def export(path: Path, file: Path, approximate: bool = False) -> None:
    """Write the network of a run as a NIR graph.

    Args:
        path: folder of the run.
        file: what is written; its name ends in ``.nir``.
        approximate: as for ``to_nir``.

    Raises:
        ArgumentError: the file has another kind of name.
        NekoError: NIR is not installed, there is no run with weights of its own, its network has something that NIR
            cannot say, or the file cannot be written.
    """
    if file.suffix != ".nir":
        raise ArgumentError("the name of the file must end in .nir", received=str(file))
    library, folder = nir_library(), RunFolder.existing(path)
    experiment = Experiment.of_run(folder)
    if isinstance(experiment.rule, SamplingRule):
        raise NekoError("a run that samples has many networks", received=str(path), works="a run that trains")
    network, weights = experiment.rule.model.network, folder.read_weights()
    network.build(_inputs(network, weights))
    network.set_parameters(weights)
    graph = to_nir(network, approximate)
    try:
        library.write(str(file), graph)
    except OSError as error:
        raise NekoError("the file must be writable", received=f"{file}: {error}") from error


def _inputs(network: Network, weights: Mapping[str, np.ndarray]) -> int:
    """How many features a network of such weights takes."""
    (connection, *_) = (each for each in network.graph.connections if each.source == INPUT)
    return int(connection.sharing.ends[0] if connection.shares else weights[connection.weight].shape[0])
