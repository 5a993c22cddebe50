"""Cases and goals of the ablations, from figures that were made up, and one small network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesmith.quantize.options import PTQOptions
from tests.benchmarks.loading import benchmark

ptq = benchmark("ptq")


def flat(accuracy: float) -> Any:
    return ptq.Figure((accuracy,), (90.0,), (0.01,))


def at_their_goals() -> dict[str, Any]:
    """Every case of a convolutional network, all goals reached exactly."""
    found = {name: flat(70.0) for name in ptq.cases(0, 1)} | {"float": flat(75.0)}
    found["int8"] = flat(75.0 - 0.3)
    found["int8, data-free"] = flat(74.0)
    found["W4A8, learned rounding"] = ptq.Figure(
        (73.6, 73.5, 74.0), (90.0, 91.0, 92.0), (0.01, 0.02, 0.03)
    )
    return found


def unmet(found: dict[str, Any]) -> list[str]:
    made = ptq.rows("IC", 5000, found, ptq.CONVOLUTIONAL_GOALS)
    return [row.id for row in made if row.missed]


def test_figures_at_their_goals_meet_them() -> None:
    assert unmet(at_their_goals()) == []


@pytest.mark.parametrize(
    ("case", "figure", "missed"),
    [
        ("int8", (74.6,), "IC int8 against float -0.3 points"),
        ("int8, data-free", (73.9,), "IC int8, data-free against float -1 points"),
        ("W4A8, GPTQ", (69.9,), "IC W4A8, GPTQ against W4A8"),
        (
            "W4A8, learned rounding",
            (75.0, 73.4, 75.0),
            "IC W4A8, learned rounding against float -1.5 points",
        ),
    ],
)
def test_a_figure_below_its_goal_misses_it(
    case: str, figure: tuple[float, ...], missed: str
) -> None:
    """Of several seeds the worst one is judged."""
    found = at_their_goals()
    found[case] = ptq.Figure(figure, tuple(90.0 for _ in figure), tuple(0.01 for _ in figure))
    assert unmet(found) == [missed]


def test_bias_correction_may_not_enlarge_the_error() -> None:
    found = at_their_goals()
    found["W4A8, data-free"] = ptq.Figure((80.0,), (90.0,), (0.011,))
    missed = "IC W4A8, data-free, error against W4A8, data-free, no bias correction"
    assert unmet(found) == [missed]


def test_rows_have_names_of_their_own_and_say_how_many_samples() -> None:
    made = list(ptq.rows("IC", 5000, at_their_goals(), ptq.CONVOLUTIONAL_GOALS))
    assert len({row.id for row in made}) == len(made)
    figures = [row for row in made if row.goal is None]
    assert all("5,000 samples" in row.id for row in figures)
    seeds = [row.value for row in figures if "learned rounding: accuracy" in row.id]
    assert seeds == pytest.approx([73.7, 73.5])


def test_every_goal_is_about_cases_that_run() -> None:
    for goal in ptq.CONVOLUTIONAL_GOALS:
        assert {goal.case, goal.than} <= {"float", *ptq.cases(0, 1)}
    for goal in ptq.TRANSFORMER_GOALS:
        assert {goal.case, goal.than} <= {"float", *ptq.TRANSFORMER_CASES}
    for options in (*ptq.cases(0, 1).values(), *ptq.TRANSFORMER_CASES.values()):
        options.check()


def test_cases_differ_from_each_other() -> None:
    made = list(ptq.cases(0, 1).values())
    assert all(made.count(each) == 1 for each in made)


@pytest.fixture
def digits() -> Any:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    return benchmark("networks.digits")


def test_planted_outliers_leave_the_function_alone(digits: Any) -> None:
    model = digits.Transformer().eval()
    x = torch.rand(5, 8, 8)
    with torch.no_grad():
        before = model(x)
        digits.plant_outliers(model)
        after = model(x)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert max(float(each.norm1.weight.abs().max()) for each in model.blocks) >= 64


def test_a_network_is_quantized_and_scored_with_every_seed(digits: Any) -> None:
    (images, labels), _ = digits.digits()
    model = digits.Transformer(width=8, heads=2, depth=1).eval()
    subject = ptq.Subject(model, images[:16], images[:40], labels[:40], 0, 1)
    found = ptq.figure(subject, PTQOptions())
    assert len(found.accuracy) == len(found.agreement) == len(found.error) == 1
    assert 0 < found.error[0] < 1
    expected = ptq.percent(ptq.outputs(subject), labels[:40])
    assert abs(found.accuracy[0] - expected) <= 100 - found.agreement[0] + 1e-9


def test_splits_of_the_digits_are_disjoint(digits: Any) -> None:
    train, test = digits.digits()
    assert len(train[0]) + len(test[0]) == 1797
    seen = {each.tobytes() for each in train[0]}
    assert np.mean([each.tobytes() in seen for each in test[0]]) < 0.01


def test_networks_whose_data_is_missing_are_left_out_visibly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGESMITH_DATA", raising=False)
    published: list[tuple[str, list[Any]]] = []

    def publish(name: str, found: list[Any]) -> bool:
        published.append((name, found))
        return True

    monkeypatch.setattr(ptq, "publish", publish)
    monkeypatch.setattr(ptq, "ablation", lambda name: iter([ptq.Row(name, 1.0, "%")]))
    threads = torch.get_num_threads()
    try:
        assert ptq.main([])
    finally:
        torch.set_num_threads(threads)
    assert "left out without EDGESMITH_DATA: ic, kws" in capsys.readouterr().out
    ((name, rows),) = published
    assert name == "ptq-partial"
    assert [row.id for row in rows] == ["transformer"]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(SystemExit, match="no network icc; choose of ic, kws, transformer"):
        ptq.main(["icc"])


def test_the_bench_is_light_to_import() -> None:
    import subprocess

    code = "import sys, ptq; assert 'torch' not in sys.modules"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root / "benchmarks")
