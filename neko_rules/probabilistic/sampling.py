"""Sampling: the chains of a rule run to their end, their draws written as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, CheckpointError
from neko_rules.probabilistic.chain_files import STATISTICS, ChainRecord, read_state
from neko_rules.probabilistic.processes import in_processes
from neko_rules.probabilistic.samples import Samples
from neko_rules.probabilistic.sampling_rule import SamplingRule
from neko_rules.samplers import Chain, Info
from neko_rules.seeding import stream

SECONDS = 5.0
"""Between two writings of a chain's state; a kill costs this much time at most."""

DESCRIPTION = "sampling.json"


@dataclass(frozen=True)
class Task:
    """One chain to be run, as it is sent to a process.

    Args:
        rule, x, y: what is sampled.
        draws, warmup, thin: how long.
        seed, chain: what its random numbers depend on.
        folder: where it writes; None to keep it in memory.
        seconds: between two writings of its state.
    """

    rule: SamplingRule
    x: np.ndarray
    y: np.ndarray
    draws: int
    warmup: int
    thin: int
    seed: int
    chain: int
    folder: Path | None
    seconds: float = SECONDS


@dataclass(frozen=True)
class Finished:
    """A chain that has been run.

    Args:
        record: its draws; None where they lie on disk.
        evaluations: of the gradient (of the energy, for a random walk), over data-set passes, warm-up included.
        inverse_mass: M⁻¹ over the kept draws.
    """

    record: ChainRecord | None
    evaluations: int
    inverse_mass: np.ndarray


def sample(
    rule: SamplingRule,
    x: Any,
    y: Any,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    *,
    thin: int = 1,
    seed: int = 0,
    folder: str | Path | None = None,
    resume: bool = False,
    processes: int = 1,
    seconds: float = SECONDS,
    told: Callable[[int, int], None] | None = None,
) -> Samples:
    """Draw from a posterior; ``Trainer(rule).sample`` says more.

    ``told`` is called with the number of a chain and its transitions so far: after each, or, if chains run in processes
    of their own, after the last.

    Raises:
        ArgumentError: an argument is out of range, or there is no folder to resume from.
        DataError: the data do not fit the model.
        IncompatibleError: the rule cannot be sent to a process.
        CheckpointError: the folder holds another run, one and ``resume`` is not set, or none and it is; or is a file.
    """
    draws, warmup = arguments.integer("draws", draws, at_least=1), arguments.integer("warmup", warmup, at_least=0)
    chains, thin = arguments.integer("chains", chains, at_least=1), arguments.integer("thin", thin, at_least=1)
    seed = arguments.integer("seed", seed, at_least=0)
    processes = arguments.integer("processes", processes, at_least=1)
    arguments.number("seconds", seconds, at_least=0)
    arguments.flag("resume", resume)
    path = _folder(folder)
    if resume and path is None:
        raise ArgumentError(
            "resume goes on with the run in a folder", received="no folder", works="give the folder of that run"
        )
    examples = rule.posterior.examples(x, y)
    sampled = rule.posterior.clone()
    description = {
        **rule.describe(),
        "weights": rule.posterior.fingerprint(),
        "data": examples.fingerprint(),
        "draws": draws,
        "warmup": warmup,
        "chains": chains,
        "thin": thin,
        "seed": seed,
    }
    if path is not None:
        _prepare(path, description, resume)
    tasks = [
        Task(rule, examples.x, examples.y, draws, warmup, thin, seed, chain, _place(path, chain), seconds)
        for chain in range(chains)
    ]
    finished = []
    if processes == 1 or chains == 1:
        finished = [run_chain(task, told) for task in tasks]
    else:
        for chain, each in enumerate(in_processes(run_chain, tasks, processes, rule.model.nx)):
            finished.append(each)
            if told is not None:
                told(chain, warmup + draws * thin)
    records = [
        each.record if each.record is not None else ChainRecord.read(task.folder)  # type: ignore[arg-type]
        for each, task in zip(finished, tasks, strict=True)
    ]
    return Samples(
        sampled,
        records,
        evaluations=[each.evaluations for each in finished],
        inverse_mass=[each.inverse_mass for each in finished],
        exact=rule.kernel.exact,
        about=description,
        examples=examples,
    )


def _folder(folder: Any) -> Path | None:
    """Where the run is written; what is no folder, and could not become one, is refused."""
    if folder is None:
        return None
    if not isinstance(folder, (str, os.PathLike)):
        raise ArgumentError("folder must be a path, as text or a Path", received=folder)
    path = Path(folder)
    file = next((each for each in (path, *path.parents) if each.is_file()), None)
    if file is not None:
        raise CheckpointError("the folder of a sampling run must not lie at or within a file", received=str(file))
    return path


def _place(folder: Path | None, chain: int) -> Path | None:
    return None if folder is None else folder / f"chain-{chain}"


def _prepare(folder: Path, description: dict[str, Any], resume: bool) -> None:
    """Begin a folder, or make sure that it holds the run that is to go on."""
    path = folder / DESCRIPTION
    if not path.exists():
        if resume:
            raise CheckpointError(
                "resume goes on with a run, whose folder must be there",
                received=f"no {DESCRIPTION} in {folder}",
                works="leave resume out to begin a new run",
            )
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    if not resume:
        raise CheckpointError(
            "the folder of a sampling run must be new", received=str(folder), works="pass resume=True to go on with it"
        )
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("the description of a run must be readable", received=f"{path}: {error}") from error
    for name, here in description.items():
        if there.get(name) != here:
            raise CheckpointError(
                f"a run must be resumed with the {name} it was begun with",
                received=f"{here!r} instead of {there.get(name)!r}",
                works="begin a new run in another folder",
            )


def run_chain(task: Task, told: Callable[[int, int], None] | None = None) -> Finished:
    """Run one chain from where it is to its end, and tell after every draw how far it is."""
    rule, adaptation, kernel = task.rule, task.rule.adaptation(task.warmup), task.rule.transitions()
    density = rule.posterior.density(task.x, task.y, rule.gradient, rule.batch_size)
    stored = None if task.folder is None else read_state(task.folder)
    if stored is None:
        # The start has a stream of its own: where chains begin does not depend on the sampler.
        begin = rule.begin(stream(task.seed, f"start {task.chain}"))
        rng = stream(task.seed, f"chain {task.chain}")
        chain = Chain(kernel, density, adaptation, begin, rng, rule.inverse_mass())
        record = ChainRecord.begin(task.draws, begin.shape[1], rule.model.network.dtype, task.folder)
        done, evaluations = 0, 0
    else:
        arrays, plain = stored
        chain = Chain.resume(kernel, density, adaptation, arrays, plain["chain"])
        assert task.folder is not None, "read from it above"
        record = ChainRecord.read(task.folder, "r+")
        done, evaluations = int(plain["draws"]), int(plain["evaluations"])

    def save() -> None:
        arrays, plain = chain.snapshot()
        record.save(arrays, {"chain": plain, "draws": done, "evaluations": evaluations})

    saved = time.monotonic()
    while chain.warming or done < task.draws:
        if chain.warming:
            evaluations += int(chain.advance().n_steps[0])
        else:
            info = _thinned(chain, task.thin)
            evaluations += int(info.n_steps[0])
            record.draws[done] = chain.state.position[0]
            record.statistics[done] = _statistics(chain, info, rule)
            done += 1
        if told is not None:
            told(task.chain, chain.transitions)
        if time.monotonic() - saved >= task.seconds:
            save()
            saved = time.monotonic()
    save()
    kept = record if task.folder is None else None
    return Finished(kept, evaluations, chain.tuning.inverse_mass)


def _thinned(chain: Chain, thin: int) -> Info:
    """So many transitions, told as one."""
    infos = [chain.advance() for _ in range(thin)]
    if thin == 1:
        return infos[0]
    return infos[-1]._replace(
        acceptance_rate=np.mean([info.acceptance_rate for info in infos], axis=0),
        n_steps=np.sum([info.n_steps for info in infos], axis=0),
        diverging=np.any([info.diverging for info in infos], axis=0),
        block_acceptance_rate=np.mean([info.block_acceptance_rate for info in infos], axis=0),
    )


def _statistics(chain: Chain, info: Info, rule: SamplingRule) -> list[float]:
    """The row of a draw, in the order of STATISTICS."""
    energy = float(chain.energy()[0])
    prior = float(rule.posterior.prior_density().energy(chain.state.position)[0])
    found = {
        "lp": -energy,
        "acceptance_rate": info.acceptance_rate[0],
        "step_size": chain.tuning.step_size,
        "n_steps": info.n_steps[0],
        "tree_depth": info.tree_depth[0],
        "diverging": info.diverging[0],
        "energy": energy if np.isnan(info.energy[0]) else info.energy[0],
        "energy_error": info.energy_error[0],
        "log_likelihood": (prior - energy) * rule.posterior.temperature,
        "block_acceptance_rate": info.block_acceptance_rate[0],
    }
    return [float(found[name]) for name in STATISTICS]
