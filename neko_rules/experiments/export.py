"""Export: the network of a run, with the weights that it ended with, in a file that other programs read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.errors import ConfigurationError, IncompatibleError, warn
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.run import Experiment
from neko_rules.experiments.sampling import is_sampling
from neko_rules.layers.graph import INPUT
from neko_rules.layers.network import Network
from neko_rules.nir import to_nir
from neko_rules.nir.library import library


def export(
    path: Path, out: Path, *, approximate: bool = False, scheme: str = "exponential", gain: str = "neurons"
) -> None:
    """Write the network of a run as a file of NIR, whole or not at all.

    Args:
        path: folder of a run that has ended.
        out: the file to write.
        approximate, scheme, gain: as for ``to_nir``.

    Raises:
        NekoError: the folder holds no run, or none that has ended; NIR cannot say what its network does; the library
            ``nir`` is not installed; the file cannot be written.
    """
    nir = library()
    folder = RunFolder.existing(path)
    experiment = Experiment.of_run(folder)
    if is_sampling(experiment.configuration.rule):
        raise IncompatibleError("an export is of one network, and a run that samples has many", received=str(path))
    network: Any = experiment.rule.model.network
    weights = folder.read_weights()
    if isinstance(network, Network):
        network.build(_inputs(network, weights))
        network.set_parameters(weights)
    graph = to_nir(network, approximate=approximate, scheme=scheme, gain=gain)
    if experiment.configuration.encoder is not None:
        warn(
            "a file of NIR has the network alone, whose inputs are made by the encoder of the run",
            received=experiment.configuration.encoder,
        )
    temporary = out.with_name(f".{out.name}.writing")
    try:
        nir.write(temporary, graph)
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigurationError(f"{out} must be writable", received=error.strerror or str(error)) from error


def _inputs(network: Network, weights: dict[str, np.ndarray]) -> int:
    """How many features the input has, which only weights know."""
    for connection in network.graph.connections:
        if connection.source == INPUT and connection.weight in weights:
            return connection.sharing.ends[0] if connection.shares else len(weights[connection.weight])
    raise IncompatibleError("the weights of a run must have those of its input", received=", ".join(weights))
