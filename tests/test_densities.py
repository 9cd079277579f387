"""Densities of a user's own: what their functions return is looked at; generators of every kind go on bit for bit."""

import json

import numpy as np
import pytest
from scipy import stats

from neko_rules.errors import ArgumentError, CheckpointError
from neko_rules.samplers import (
    Adaptation,
    BlockwiseKernel,
    Chain,
    Density,
    HMCKernel,
    MALAKernel,
    NUTSKernel,
    RandomWalkKernel,
    SGHMCKernel,
    SGLDKernel,
    draw,
    generator,
)

KERNELS = [MALAKernel(), HMCKernel(3), NUTSKernel(), RandomWalkKernel(), SGLDKernel(), SGHMCKernel()]
GRADIENTS = [kernel for kernel in KERNELS if not isinstance(kernel, RandomWalkKernel)]
START = np.array([[0.3, -1.0, 0.5], [1.0, 0.2, 0.1]])
NEVER, RNG = Adaptation(warmup=0), np.random.default_rng(0)


def energy(q):
    return 0.5 * (q**2).sum(axis=1)


def both(q):
    return energy(q), q


def drawn(kernel, density, begin=START):
    return draw(kernel, density, begin, 6, Adaptation(warmup=4, step_size=0.4), seed=1).positions


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (lambda q: energy(q).sum(), r"float64 of shape \(\)\); sum over the coordinates"),
        (lambda q: energy(q)[:, None], r"float64 of shape \(2, 1\)\)"),
        (lambda q: 0.5 * q**2, r"float64 of shape \(2, 3\)\)"),
        (lambda q: energy(q) + 0j, r"complex128 of shape \(2,\)\)"),
        (lambda q: ["much", "little"], r"<U6 of shape \(2,\)\)"),
        (lambda q: None, "None"),
    ],
)
def test_an_energy_that_is_not_one_number_for_each_position_is_refused(kernel, wrong, received):
    density = Density(wrong, lambda q: (wrong(q), q))
    with pytest.raises(ArgumentError, match=rf"the energy .* real numbers of shape \(2,\).*\(received: {received}"):
        drawn(kernel, density)


@pytest.mark.parametrize("kernel", GRADIENTS, ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (lambda q: q.sum(axis=1), r"float64 of shape \(2,\)"),
        (lambda q: q[0], r"float64 of shape \(3,\)"),
        (lambda q: q.T, r"float64 of shape \(3, 2\)"),
        (lambda q: q > 0, r"bool of shape \(2, 3\)"),
        (lambda q: [[1.0], [1.0, 2.0]], "list, of which NumPy says"),
    ],
)
def test_a_gradient_that_is_not_one_number_for_each_coordinate_is_refused(kernel, wrong, received):
    for density in (Density(energy, lambda q: (energy(q), wrong(q))), Density(energy, both).driven_by(wrong)):
        with pytest.raises(ArgumentError, match=rf"the gradient .* of shape \(2, 3\).*\(received: {received}"):
            drawn(kernel, density)


def test_what_is_no_pair_or_no_function_is_refused():
    with pytest.raises(ArgumentError, match=r"must return a pair \(energy, gradient\) \(received: ndarray\)"):
        drawn(MALAKernel(), Density(energy, lambda q: q))
    with pytest.raises(ArgumentError, match=r"must return a pair .*\(received: tuple of 3\)"):
        drawn(MALAKernel(), Density(energy, lambda q: (energy(q), q, q)))
    with pytest.raises(ArgumentError, match="energy of a density must be a function"):
        Density(3.0, both)
    estimated = Density(energy, both, lambda rng, q: q[0])
    with pytest.raises(ArgumentError, match=r"the estimate of the gradient .* of shape \(2, 3\)"):
        drawn(SGLDKernel(), estimated)
    with pytest.raises(ArgumentError, match=r"write one position as position\[None\]"):
        drawn(MALAKernel(), Density(energy, both), START[0])
    with pytest.raises(ArgumentError, match="with at least one of each"):
        drawn(MALAKernel(), Density(energy, both), np.zeros((0, 3)))


@pytest.mark.parametrize("kernel", [MALAKernel(), HMCKernel(3), NUTSKernel()], ids=lambda k: type(k).__name__)
def test_energies_that_differ_are_refused_where_a_chain_begins(kernel):
    """A chain would move by one and, among moves of blocks or in what is told of it, go by the other."""
    said = r"same energy \(received: 1\.04 and 0\.52 at the first position of chain 1\); let energy be lambda q"
    begin = np.array([[0.0, 0.0, 0.0], [1.0, 0.2, 0.0]])
    with pytest.raises(ArgumentError, match=said):
        drawn(kernel, Density(lambda q: 2 * energy(q), both), begin)
    with pytest.raises(ArgumentError, match="received: nan and"):
        drawn(kernel, Density(lambda q: np.full(len(q), np.nan), both))
    with pytest.raises(ArgumentError, match="must give the same energy"):
        Chain(
            BlockwiseKernel(kernel, [([[0]], 1)], np.ones(3)), Density(lambda q: energy(q) + 3, both), NEVER, START, RNG
        )
    # Gradients are any function of the position, energies may be rounded, and a random walk asks for one alone.
    drawn(kernel, Density(energy, both).driven_by(lambda q: -3 * q + 1))
    drawn(kernel, Density(lambda q: energy(q.astype(np.float32)), both))
    drawn(RandomWalkKernel(), Density(lambda q: 2 * energy(q), both))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_whatever_numpy_makes_numbers_of_gives_the_same_chain(kernel):
    reference = drawn(kernel, Density(energy, both))
    lists = Density(lambda q: energy(q).tolist(), lambda q: [energy(q).tolist(), q.tolist()])
    np.testing.assert_array_equal(drawn(kernel, lists), reference)
    torch = pytest.importorskip("torch")

    def told(q):
        q = torch.as_tensor(q)
        return 0.5 * (q**2).sum(dim=1), q

    np.testing.assert_allclose(drawn(kernel, Density(lambda q: told(q)[0], told)), reference, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_functions_that_work_in_place_give_the_same_chain(kernel):
    """Those that change the positions they are given, and those that give the same memory every time."""
    reference = drawn(kernel, Density(energy, both))
    values, slopes = np.empty(2), np.empty((2, 3))

    def spoils(q):
        found = energy(q)
        q *= 100.0
        return found

    def same_memory(q):
        values[: len(q)], slopes[: len(q)] = energy(q), q
        q[:] = np.nan
        return values[: len(q)], slopes[: len(q)]

    np.testing.assert_array_equal(drawn(kernel, Density(spoils, same_memory)), reference)


def test_an_energy_in_float32_is_still_sampled_rightly():
    # Below 1e-6 a false failure: 400 positions, thinned, of a standard normal density.
    density = Density(lambda q: energy(q.astype(np.float32)), lambda q: both(q.astype(np.float32)))
    begin = np.random.default_rng(3).normal(size=(200, 2))
    found = draw(HMCKernel(4), density, begin, 2, Adaptation(warmup=0, step_size=0.6), seed=2, thin=3).positions
    assert found.dtype == np.float64
    assert stats.kstest(found[:, -1].ravel(), "norm").pvalue > 1e-6


# Generators.


@pytest.mark.parametrize("name", generator.BIT_GENERATORS)
@pytest.mark.parametrize("ahead", [0, 1, 9])
def test_a_chain_goes_on_bit_for_bit_with_every_bit_generator(name, ahead):
    density, adaptation = Density(energy, both), Adaptation(warmup=6)
    rng = np.random.Generator(getattr(np.random, name)(5))
    rng.integers(9, size=ahead, dtype=np.int32)  # half a word may be left over
    chain = Chain(NUTSKernel(), density, adaptation, START, rng)
    for _ in range(ahead):
        chain.advance()
    arrays, plain = chain.snapshot()
    resumed = Chain.resume(NUTSKernel(), density, adaptation, arrays, json.loads(json.dumps(plain)))
    for _ in range(8):
        chain.advance()
        resumed.advance()
        np.testing.assert_array_equal(chain.state.position, resumed.state.position)
    assert chain.rng.random() == resumed.rng.random()
    assert type(resumed.rng.bit_generator).__name__ == name


class Loud(np.random.PCG64):
    """A user's own, which says so in its state."""

    @property
    def state(self):
        return super().state | {"bit_generator": "Loud"}


def test_a_bit_generator_that_could_not_be_found_again_is_refused():
    density = Density(energy, both)
    chain = Chain(MALAKernel(), density, Adaptation(warmup=0), START, np.random.Generator(Loud(0)))
    chain.advance()
    with pytest.raises(CheckpointError, match=r"NumPy's own \(received: Loud\); use one of PCG64"):
        chain.snapshot()
    with pytest.raises(CheckpointError, match=r"NumPy's own \(received: Loud\)"):
        generator.restored({"bit_generator": "Loud"})
    for wrong in (0, None, np.random.RandomState(0), np.random.PCG64(0)):
        with pytest.raises(ArgumentError, match=r"NumPy Generator .*np.random.default_rng\(seed\)"):
            Chain(MALAKernel(), density, Adaptation(warmup=0), START, wrong)
