"""Benchmarks: the same task for every contender, honest turns and ratios, and what happens to one that fails."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neko_rules.backend import BUILT_IN, is_installed
from neko_rules.cli import main
from neko_rules.errors import ArgumentError
from neko_rules.experiments import benchmark
from neko_rules.experiments.benchmark import Case, Result, Worker, fastest_peer, make, serve, time_rounds
from neko_rules.experiments.quick_benchmark import quick_benchmark
from neko_rules.experiments.workloads import WORKLOADS, Workload, calibrated, firing_rates

ROOT = Path(__file__).resolve().parents[1]
SMALL = Workload("small", "alif", 12, (16,), 3, True, 20, 8, 0.2, 0.1, gains=(1.5,))
STACK = Workload("stack", "lif", 12, (16, 10), 3, False, 20, 8, 0.2, 0.1, "fast_sigmoid", gains=(2.0, 2.0))


class TestWorkloads:
    @pytest.mark.parametrize("name", ["A", "A LIF", "B", "B LIF", "D 128", "D 512", "E"])
    def test_hidden_neurons_spike_as_often_as_is_said(self, name: str) -> None:
        workload = WORKLOADS[name]
        assert firing_rates(workload) == pytest.approx([workload.hidden_rate], rel=0.1)

    @pytest.mark.parametrize("name", ["C", "C 30 %"])
    def test_two_layers_do_so_too(self, name: str) -> None:
        workload = replace(WORKLOADS[name], batch=2)
        assert firing_rates(workload) == pytest.approx([workload.hidden_rate] * 2, rel=0.1)

    @pytest.mark.parametrize("name", list(WORKLOADS))
    def test_inputs_are_as_frequent_as_is_said(self, name: str) -> None:
        workload = replace(WORKLOADS[name], batch=4)
        x, y = workload.data()
        assert x.shape == (4, workload.steps, workload.inputs)
        assert x.dtype == np.float32
        assert np.count_nonzero(x) / x.size == pytest.approx(workload.input_rate, rel=0.1)
        assert (set(np.unique(x)) == {0, 1}) is not workload.graded
        assert set(y) <= set(range(workload.outputs))

    def test_calibration_finds_the_rates_that_are_wanted(self) -> None:
        found = calibrated(replace(STACK, steps=100))
        assert firing_rates(found) == pytest.approx([0.1, 0.1], rel=0.1)

    def test_a_seed_changes_data_and_weights(self) -> None:
        other = replace(SMALL, seed=1)
        assert not np.array_equal(SMALL.data()[0], other.data()[0])
        assert not np.array_equal(SMALL.weights()["input0"], other.weights()["input0"])

    @pytest.mark.parametrize("workload", [SMALL, STACK], ids=["recurrent", "feed-forward"])
    @pytest.mark.parametrize("rule", ["bptt", "eprop"])
    def test_the_rates_of_the_description_are_those_of_the_package(self, workload: Workload, rule: str) -> None:
        contender = benchmark.neko(workload, 1, backend="numpy", rule=rule)
        assert contender.rates() == pytest.approx(firing_rates(workload), rel=1e-3)
        assert min(contender.rates()) > 0.01

    @pytest.mark.parametrize("backend", [name for name in BUILT_IN if name != "numpy"])
    def test_every_backend_has_the_same_loss(self, backend: str) -> None:
        if not is_installed(backend):
            pytest.skip(f"{backend} is not installed")
        first, second = (benchmark.neko(STACK, 1, backend=name, rule="bptt") for name in ("numpy", backend))
        assert first.step() == pytest.approx(second.step(), rel=1e-5)


def spiking(workload: Workload, threads: int, *, fails: bool = False) -> Any:
    """A contender without a network."""
    steps: list[int] = []

    def step() -> float:
        steps.append(1)
        if fails and len(steps) > benchmark.WARM + 1:
            raise RuntimeError("no more")
        return 0.5

    return SimpleNamespace(step=step, rates=lambda: [workload.hidden_rate])


class LocalWorker:
    """What a worker's process does, in this one."""

    def __init__(self) -> None:
        self.contenders: dict[str, Any] = {}

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        replies = io.StringIO()
        orders = [json.dumps(order)]
        if "time" in order:
            orders.insert(0, json.dumps(self.contenders[order["time"]]))
        else:
            self.contenders[order["make"]] = order
        serve(io.StringIO("\n".join(orders)), replies, 1)
        answer: dict[str, Any] = json.loads(replies.getvalue().splitlines()[-1])
        return answer


def case(label: str, **options: Any) -> Case:
    return Case(label, SMALL, f"{__name__}:spiking", options)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module by its name, however the tests were collected."""
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(spiking=spiking))


@pytest.mark.usefixtures("importable")
class TestTurns:
    def test_every_contender_has_a_turn_in_every_round_in_changing_order(self) -> None:
        worker: Any = LocalWorker()
        entries = [(worker, make(worker, case(str(number)), 1)) for number in range(4)]
        turns = [(number, result.case.label) for number, result in time_rounds(entries, 6, seconds=0.0)]
        orders = [tuple(label for number, label in turns if number == each) for each in range(6)]
        assert all(sorted(order) == ["0", "1", "2", "3"] for order in orders)
        assert len(set(orders)) > 2
        assert all(len(result.seconds) == len(result.cpu_seconds) == 6 for _, result in entries)
        assert [result.rounds for _, result in entries] == [[0, 1, 2, 3, 4, 5]] * 4

    def test_the_orders_are_those_of_the_seed(self) -> None:
        def turns(seed: int) -> list[str]:
            worker: Any = LocalWorker()
            entries = [(worker, make(worker, case(str(number)), 1)) for number in range(5)]
            return [result.case.label for _, result in time_rounds(entries, 3, seed, seconds=0.0)]

        assert turns(1) == turns(1)
        assert turns(1) != turns(2)

    def test_first_step_rates_and_memory_are_told(self) -> None:
        worker: Any = LocalWorker()
        found = make(worker, case("one"), 1)
        assert (found.loss, found.rates, found.error) == (0.5, [SMALL.hidden_rate], "")
        assert found.first_seconds > 0
        assert found.peak_bytes > 1e6
        assert make(worker, case("two"), 1, rates=False).rates == []

    def test_one_that_fails_says_why_and_the_others_go_on(self) -> None:
        worker: Any = LocalWorker()
        entries = [(worker, make(worker, case("good"), 1)), (worker, make(worker, case("bad", fails=True), 1))]
        list(time_rounds(entries, 3, seconds=0.0))
        (_, good), (_, bad) = entries
        assert (len(good.seconds), good.error) == (3, "")
        assert (bad.seconds, bad.error) == ([], "RuntimeError: no more")

    def test_one_that_is_not_installed_says_so(self) -> None:
        worker: Any = LocalWorker()
        found = make(worker, Case("missing", SMALL, "a_library_that_does_not_exist:neko"), 1)
        assert "a_library_that_does_not_exist" in found.error


def result(seconds: list[float], rounds: list[int] | None = None, peer: bool = False, label: str = "") -> Result:
    numbers = list(range(len(seconds))) if rounds is None else rounds
    return Result(Case(label, SMALL, peer=peer), 1, seconds=seconds, cpu_seconds=seconds, rounds=numbers)


class TestRatios:
    def test_they_are_taken_within_a_round(self) -> None:
        # The machine was ten times slower in the second round, and the first contender was not there in the third.
        assert result([1.0, 10.0]).ratio(result([2.0, 20.0, 0.1])) == 0.5
        assert result([1.0, 10.0], [1, 2]).ratio(result([7.0, 2.0, 20.0])) == 0.5

    def test_without_a_round_in_common_there_is_none(self) -> None:
        assert np.isnan(result([1.0], [0]).ratio(result([1.0], [1])))

    def test_the_fastest_peer_is_that_of_the_smallest_median(self) -> None:
        slow, fast = result([3.0, 0.1, 3.0], peer=True), result([2.0, 2.0, 2.0], peer=True)
        assert fastest_peer([result([0.5]), slow, fast, result([], peer=True)]) is fast
        assert fastest_peer([result([0.5])]) is None

    def test_the_summary_is_json(self) -> None:
        told = json.loads(json.dumps(result([1.0, 2.0, 3.0], label="x").summary()))
        assert (told["label"], told["median"], told["low"], told["cpu"]) == ("x", 2.0, 1.5, 2.0)


class TestProcess:
    def test_a_worker_steps_the_package_with_its_threads(self) -> None:
        worker = Worker(1)
        try:
            found = make(worker, Case("numpy", SMALL, options={"backend": "numpy", "rule": "eprop"}), 1)
            list(time_rounds([(worker, found)], 2, seconds=0.0))
        finally:
            worker.close()
        assert found.error == ""
        assert len(found.seconds) == 2
        assert found.rates == pytest.approx(firing_rates(SMALL), rel=1e-3)

    def test_an_environment_with_numpy_alone_can_run_a_worker(self) -> None:
        code = (
            "import sys, neko_rules.experiments.benchmark; "
            "heavy = {'torch', 'tensorflow', 'jax', 'scipy', 'sympy', 'pydantic', 'yaml', 'rich', 'typer'}; "
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_a_process_that_ends_is_an_error_and_no_hang(self) -> None:
        worker = Worker(1)
        worker.process.kill()
        # So that it is gone when it is written to.
        worker.process.wait()
        found = make(worker, Case("numpy", SMALL, options={"backend": "numpy", "rule": "eprop"}), 1)
        worker.close()
        assert "the process ended" in found.error


class TestCommand:
    def test_it_shows_a_table_for_each_workload(self, capsys: Any) -> None:
        assert main(["bench", "--backends", "numpy", "--seconds", "8"]) == 0
        out = capsys.readouterr().out
        assert WORKLOADS["A"].title() in out
        assert WORKLOADS["B"].title() in out
        assert re.search(r"numpy +BPTT +[\d.]+ +[\d.]+ to [\d.]+ +[\d.]+", out)
        assert "taken within every round" in out

    def test_help_has_an_example(self, capsys: Any) -> None:
        assert main(["bench", "--help"]) == 0
        assert "neko bench --backends numpy torch --threads 2" in " ".join(capsys.readouterr().out.split())

    def test_an_unknown_backend_is_refused_in_a_sentence(self, capsys: Any) -> None:
        assert main(["bench", "--backends", "nunpy"]) == 2
        assert "did you mean 'numpy'" in capsys.readouterr().err

    def test_what_is_not_ready_in_time_is_left_out(self) -> None:
        found = quick_benchmark(["numpy"], seconds=1e-6, workloads=(SMALL,))
        assert [each.error for each in found] == ["time was up"] * 2

    def test_threads_are_checked(self) -> None:
        with pytest.raises(ArgumentError, match="threads"):
            quick_benchmark(["numpy"], threads=0)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmarks' own package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speed.claims
    import speed.figures
    import speed.suites
    import speed.tables

    return SimpleNamespace(claims=speed.claims, figures=speed.figures, suites=speed.suites, tables=speed.tables)


class TestSuites:
    def test_every_contender_exists_and_has_a_label_of_its_own(self, speed: Any) -> None:
        for name in speed.suites.SUITES:
            cases = speed.suites.suite(name)
            assert len({each.label for each in cases}) == len(cases)
            assert any(each.peer for each in cases)
            for each in cases:
                module, _, function = each.contender.partition(":")
                if module.startswith("speed."):
                    text = (ROOT / "benchmarks" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
                    assert function in {f.name for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}

    def test_a_table_is_made_of_rows(self, speed: Any) -> None:
        peer = result([2.0, 4.0], peer=True, label="peer").summary()
        mine = result([1.0, 2.0], label="neko numpy, BPTT").summary()
        record = {"title": "A", "threads": 1, "rows": [peer, mine, {**mine, "seconds": [], "error": "not there"}]}
        text = speed.tables.markdown(record)
        assert re.search(r"\*\*neko numpy, BPTT\*\* \| 1500 \| 1250 to 1750 \| 0.50 \|", text)
        assert "Left out: neko numpy, BPTT (not there)." in text

    def test_claims_compare_the_fastest_of_each_kind(self, speed: Any) -> None:
        def row(label: str, seconds: float, peer: bool = False, backend: str = "torch") -> dict[str, Any]:
            made = result([seconds, seconds, seconds], peer=peer, label=label).summary()
            contender = "speed.torch_contenders:plain" if peer else benchmark.NEKO
            return {**made, "contender": contender, "options": {} if peer else {"backend": backend}}

        rows = [
            row("peer", 6.0, peer=True),
            row("slow peer, BPTT", 9.0, peer=True),
            row("neko torch, BPTT", 3.0),
            row("neko torch, e-prop", 1.5),
            row("neko jax, e-prop", 7.0, backend="jax"),
        ]
        record = {"suite": "A", "threads": 1, "title": "A", "rows": rows}
        found = {claim.statement: claim for claim in speed.claims.claims_of(record)}
        assert found["A: e-prop : fastest peer"].measured == 0.25
        assert found["A: e-prop : fastest peer"].holds
        assert found["A: BPTT : fastest peer"].measured == 0.5
        assert not found["A: BPTT : fastest peer"].holds
        assert found["A: BPTT : fastest peer by BPTT"].between == "neko torch, BPTT : slow peer, BPTT"
        assert "A: e-prop : fastest peer by e-prop" not in found
        assert found["A: on torch : fastest peer on torch"].between == "neko torch, e-prop : peer"
        assert found["A: e-prop : BPTT"].processor == 0.5
        assert "A: on jax : fastest peer on jax" not in found
        assert "**does not hold**" in speed.claims.markdown([record])

    def test_d_is_compared_with_what_is_quoted(self, speed: Any) -> None:
        made = result([1e-3] * 3, label="neko numpy, e-prop").summary()
        row = {**made, "contender": benchmark.NEKO, "options": {"backend": "numpy"}}
        [claim] = speed.claims.claims_of({"suite": "D 128", "threads": 1, "title": "D", "rows": [row]})
        assert claim.measured == pytest.approx(1 / 5.3)
        assert "quoted" in claim.between

    def test_the_figure_has_a_panel_for_each_suite(self, speed: Any) -> None:
        rows = [result([2.0, 4.0], peer=True, label="peer").summary(), result([1.0, 2.0], label="neko").summary()]
        records = [
            {"suite": name, "threads": threads, "title": name, "rows": rows}
            for name in ("A", "D 128")
            for threads in (1, 2)
        ]
        drawn = speed.figures.by_suite(records)
        assert [[text.get_text() for text in ax.get_yticklabels()] for ax in drawn.axes] == [
            ["neko", "peer"],
            ["neko", "peer", "mlGeNN (quoted)"],
        ]

    def test_curves_show_time_above_memory(self, speed: Any) -> None:
        row = {**result([1.0, 2.0]).summary(), "peak_bytes": 5e6}
        drawn = speed.figures.by_size({"T": {"neko": [(50, row), (100, row)]}, "batch": {"neko": [(1, row)]}})
        values = [list(ax.lines[0].get_ydata()) for ax in drawn.axes]
        assert values == [[1500.0, 1500.0], [1500.0], [5.0, 5.0], [5.0]]

    def test_only_what_stands_between_the_marks_is_replaced(self, speed: Any, tmp_path: Path) -> None:
        path = tmp_path / "speed.md"
        begin, end = (mark.format("measured") for mark in speed.tables.MARKS)
        path.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
        speed.tables.write_block(path, "new")
        text = path.read_text(encoding="utf-8")
        assert "old" not in text
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "\nnew\n" in text


def test_workloads_survive_the_way_to_a_worker() -> None:
    given = json.loads(json.dumps(asdict(STACK)))
    assert Workload(**{**given, "hidden": tuple(given["hidden"]), "gains": tuple(given["gains"])}) == STACK
