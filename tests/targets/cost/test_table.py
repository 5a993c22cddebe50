"""Records on disk: damage, versions, processes. Needs no tool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.values import Kind
from edgesmith.targets.cost import (
    CostError,
    ErrorSample,
    Figure,
    LayerCost,
    Metric,
    ModelCost,
)
from edgesmith.targets.cost.table import LayerRecord, Table

FACTS = {"core": "cortex-m4"}
TOOLS = {"tool gcc": "12"}


def figure(value: float, kind: Kind = Kind.SIMULATED) -> Figure:
    return Figure(value, "instructions", kind, 4, value - 1, value + 1)


def record(key: str, value: float = 10) -> LayerRecord:
    cycles = figure(2 * value, Kind.ESTIMATED)
    return LayerRecord(key, {"function": "es_x"}, figure(value), cycles, 24, "es_x", {"es_x 8": 8})


def test_records_are_found_again(tmp_path: Path) -> None:
    table = Table.open(LayerRecord, tmp_path, FACTS, TOOLS)
    table.store([record("aa"), record("bb", 20)])
    again = Table.open(LayerRecord, tmp_path, FACTS, TOOLS)
    assert again.get("aa") == record("aa")
    assert again.get("bb") == record("bb", 20)
    assert again.get("cc") is None


def test_another_process_sees_new_records_after_reload(tmp_path: Path) -> None:
    reader, writer = (Table.open(LayerRecord, tmp_path, FACTS, TOOLS) for _ in range(2))
    writer.store([record("aa")])
    assert reader.get("aa") is None
    reader.reload()
    assert reader.get("aa") == record("aa")


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_file_is_ignored_and_can_be_stored_again(tmp_path: Path, keep: int) -> None:
    table = Table.open(LayerRecord, tmp_path, FACTS, TOOLS)
    table.store([record("aa")])
    table.store([record("bb")])
    damaged = next(p for p in (table.folder / "batches").iterdir() if '"aa"' in p.read_text())
    damaged.write_bytes(damaged.read_bytes()[:keep])
    again = Table.open(LayerRecord, tmp_path, FACTS, TOOLS)
    assert again.get("aa") is None
    assert again.get("bb") == record("bb")
    again.store([record("aa")])
    assert Table.open(LayerRecord, tmp_path, FACTS, TOOLS).get("aa") == record("aa")


def test_other_facts_and_tools_have_other_tables(tmp_path: Path) -> None:
    Table.open(LayerRecord, tmp_path, FACTS, TOOLS).store([record("aa")])
    assert Table.open(LayerRecord, tmp_path, {"core": "cortex-m7"}, TOOLS).get("aa") is None
    assert Table.open(LayerRecord, tmp_path, FACTS, {"tool gcc": "13"}).get("aa") is None


def test_without_tools_the_table_that_was_filled_last_answers(tmp_path: Path) -> None:
    assert Table.newest(LayerRecord, tmp_path, FACTS) is None
    Table.open(LayerRecord, tmp_path, FACTS, TOOLS).store([record("aa")])
    Table.open(LayerRecord, tmp_path, FACTS, {"tool gcc": "13"}).store([record("aa", 30)])
    found = Table.newest(LayerRecord, tmp_path, FACTS)
    assert found is not None
    assert found.get("aa") == record("aa", 30)
    assert found.about.tools == {"tool gcc": "13"}


def test_the_stated_error_belongs_to_the_generator_that_it_was_found_with(tmp_path: Path) -> None:
    table = Table.open(LayerRecord, tmp_path, FACTS, TOOLS)
    error = CostError.of("m4", [ErrorSample("a", Metric.INSTRUCTIONS, 99, 100)])
    table.store_error("1" * 64, error)
    assert table.error("1" * 64) == error
    assert table.error("2" * 64) is None


def test_an_error_is_the_mean_and_the_largest_of_its_samples() -> None:
    samples = [
        ErrorSample("a", Metric.INSTRUCTIONS, 99, 100),
        ErrorSample("b", Metric.INSTRUCTIONS, 103, 100),
        ErrorSample("a", Metric.FLASH, 10, 10),
    ]
    error = CostError.of("m4", samples)
    assert error.metrics[Metric.INSTRUCTIONS].mean == pytest.approx(0.02)
    assert error.metrics[Metric.INSTRUCTIONS].max == pytest.approx(0.03)
    assert error.metrics[Metric.INSTRUCTIONS].samples == 2
    assert error.metrics[Metric.FLASH].max == 0


def test_costs_round_trip_through_json() -> None:
    layer = LayerCost("conv", "Conv2D", "es_conv", {Metric.INSTRUCTIONS: figure(3)})
    error = CostError.of("m4", [ErrorSample("a", Metric.CYCLES, 1, 2)])
    cost = ModelCost(
        "m4",
        {Metric.CYCLES: figure(3, Kind.ESTIMATED), Metric.INSTRUCTIONS: figure(2)},
        (layer,),
        layer,
        {"clock": "1 Hz"},
        error,
    )
    assert from_json(ModelCost, to_json(cost)) == cost
    assert cost[Metric.CYCLES].kind is Kind.ESTIMATED
    assert cost[Metric.INSTRUCTIONS].kind is Kind.SIMULATED


HOLD = """
import sys
from pathlib import Path
from edgesmith.targets.cost.table import LayerRecord, Table
table = Table.open(LayerRecord, Path(sys.argv[1]), {"core": "cortex-m4"}, {"tool gcc": "12"})
with table.claimed(["aa1", "bb1"]) as mine:
    print(",".join(sorted(mine)), flush=True)
    sys.stdin.readline()
"""


def test_what_one_process_measures_another_leaves_alone(tmp_path: Path) -> None:
    table = Table.open(LayerRecord, tmp_path, FACTS, TOOLS)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "aa1,bb1"
        with table.claimed(["aa2", "cc1"]) as mine:
            assert mine == {"cc1"}
        with table.claimed(["aa2"]) as mine:
            assert not mine
        other.kill()  # a killed process holds nothing
        other.wait()
        with table.claimed(["aa1", "bb1"], wait=True) as mine:
            assert mine == {"aa1", "bb1"}
