"""Lint: every mistake gives exactly one problem, at its place, with its fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ExitCode
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.lint import check_source, load_spec
from edgesmith.pipeline.problems import InvalidSpecError, Problem, ProblemCode, render, split_lines
from edgesmith.pipeline.spec import FileModel, Spec, TorchModel, json_schema
from edgesmith.pipeline.spec_source import parse_source
from tests.pipeline.world import SPEC, registries, write_spec

REGISTRIES = registries()


def check_text(text: str, path: Path) -> tuple[Spec | None, tuple[Problem, ...]]:
    return check_source(parse_source(text, str(path)), REGISTRIES)


def problems_of(folder: Path, text: str) -> tuple[Problem, ...]:
    path = write_spec(folder, text)
    spec, problems = check_text(text, path)
    assert (spec is None) == bool(problems)
    return problems


def place_of(text: str, token: str) -> tuple[int, int]:
    """Line and column of the first occurrence of a token."""
    before = text[: text.index(token)].split("\n")
    return len(before), len(before[-1]) + 1


def test_a_good_spec_has_no_problems_and_round_trips(tmp_path: Path) -> None:
    spec = load_spec(write_spec(tmp_path), REGISTRIES)
    assert isinstance(spec.model, TorchModel)
    assert spec.model.args == {"width": 8}
    assert spec.data.calibration is not None
    assert spec.data.calibration.limit == 3
    assert spec.parameters("make") == {"text": "abc"}
    assert spec.parameters("other") == {}
    assert spec.folder == tmp_path.resolve()
    assert from_json(Spec, to_json(spec)) == spec


# what is replaced in the good spec, by what, the code, the token under the caret, words of the fix
MISTAKES = {
    "misspelled required key": (
        "factory: model.py", "factroy: model.py",
        ProblemCode.UNKNOWN_KEY, "factroy", "`factory`",
    ),
    "misspelled section": ("model:\n", "modl:\n", ProblemCode.UNKNOWN_KEY, "modl", "`model`"),
    "misspelled tag key": ("kind: torch", "knd: torch", ProblemCode.UNKNOWN_KEY, "knd", "`kind`"),
    "misspelled list section": (
        "stages:\n", "stags:\n", ProblemCode.UNKNOWN_KEY, "stags", "`stages`",
    ),
    "unknown key": ("seed: 7", "zzz: 7", ProblemCode.UNKNOWN_KEY, "zzz", "known keys"),
    "unknown stage parameter": (
        "text: abc", "tekst: abc", ProblemCode.UNKNOWN_KEY, "tekst", "`text`",
    ),
    "misspelled stage key": ("stage: make", "stge: make", ProblemCode.UNKNOWN_KEY, "stge", "stage"),
    "missing key": (
        "  factory: model.py:build_model\n", "",
        ProblemCode.MISSING_KEY, "model:", "`factory: ...`",
    ),
    "missing section": ("name: small\n", "", ProblemCode.MISSING_KEY, "spec_version", "`name: ..."),
    "no kind": ("  kind: torch\n", "", ProblemCode.MISSING_KEY, "model:", "`kind: ...`"),
    "wrong kind": ("kind: torch", "kind: torhc", ProblemCode.BAD_VALUE, "torhc", "`torch`"),
    "kind of another type": ("kind: torch", "kind: 3", ProblemCode.BAD_VALUE, "3", "`file`"),
    "key of the other kind": (
        "  checkpoint:", "  path: x.onnx\n  checkpoint:",
        ProblemCode.CONFLICT, "path", "`kind: file`",
    ),
    "text for a number": ("limit: 3", "limit: '3'", ProblemCode.WRONG_TYPE, "'3'", "digits"),
    "number for text": ('"zero"', "0", ProblemCode.WRONG_TYPE, "0, ", "quotes"),
    "list for a mapping": (
        "{factory: data.py:split, args: {part: test}}", "[data.py]",
        ProblemCode.WRONG_TYPE, "[data.py]", "key: value",
    ),
    "scalar for a list": (
        "[plain-board]", "plain-board", ProblemCode.WRONG_TYPE, "plain-board", "[a, b]",
    ),
    "stages no list": (
        "\n  - stage: make\n    text: abc", " make", ProblemCode.WRONG_TYPE, "make", "- stage",
    ),
    "empty value": ("name: small", "name:", ProblemCode.WRONG_TYPE, "name:", "quotes"),
    "no targets": ("[plain-board]", "[]", ProblemCode.BAD_VALUE, "[]\n", "at least one"),
    "name that leaves the folder": (
        "name: small", "name: ../up", ProblemCode.BAD_VALUE, "../up", "bounds",
    ),
    "negative budget": ("points: 0.5", "points: -1", ProblemCode.BAD_VALUE, "-1", "bounds"),
    "zero latency": ("max: 5.0", "max: 0", ProblemCode.BAD_VALUE, "0}", "bounds"),
    "unknown percentile": ("p90", "p95", ProblemCode.BAD_VALUE, "p95", "`median`"),
    "negative seed": ("seed: 7", "seed: -7", ProblemCode.BAD_VALUE, "-7", "bounds"),
    "empty shape": ("[1, 2, 2]", "[]", ProblemCode.BAD_VALUE, "[]\n", "at least one"),
    "zero in shape": ("[1, 2, 2]", "[1, 0, 2]", ProblemCode.BAD_VALUE, "0, 2]", "bounds"),
    "other version": (
        "spec_version: 1", "spec_version: 9", ProblemCode.SPEC_VERSION, "9", "spec_version: 1",
    ),
    "version as text": (
        "spec_version: 1", "spec_version: one", ProblemCode.BAD_VALUE, "one", "`1`",
    ),
    "both sources of weights": (
        "  checkpoint:", "  trainer: model.py:build_model\n  checkpoint:",
        ProblemCode.CONFLICT, "trainer", "one of them",
    ),
    "no source of weights": (
        "  checkpoint: weights.safetensors\n", "", ProblemCode.CONFLICT, "model:", "schema",
    ),
    "unknown stage": ("stage: make", "stage: mke", ProblemCode.UNKNOWN_STAGE, "mke", "`make`"),
    "entry without stage": ("stage: make", "q: make", ProblemCode.MISSING_KEY, "q:", "`make`"),
    "stage listed twice": (
        "    text: abc", "    text: abc\n  - stage: make",
        ProblemCode.CONFLICT, "make\ntar", "join",
    ),
    "wrong stage parameter": ("abc", "[abc]", ProblemCode.WRONG_TYPE, "[abc]", "quotes"),
    "unknown target": (
        "plain-board", "plane-board", ProblemCode.UNKNOWN_TARGET, "plane-board", "`plain-board`",
    ),
    "target listed twice": (
        "[plain-board]", "[plain-board, plain-board]",
        ProblemCode.CONFLICT, "plain-board]", "remove",
    ),
    "missing checkpoint": (
        "weights.safetensors", "no.pt", ProblemCode.MISSING_FILE, "no.pt", "spec's folder",
    ),
    "missing factory file": (
        "model.py:", "nomodel.py:", ProblemCode.BAD_FACTORY, "nomodel", "check the path",
    ),
    "missing module": (
        "model.py:", "no.such.module:", ProblemCode.BAD_FACTORY, "no.such", "ends in .py",
    ),
    "not a factory": ("model.py:build_model", "model", ProblemCode.BAD_FACTORY, "model\n", ".py:"),
    "unknown factory": (
        "model.py:build_model", "model.py:build",
        ProblemCode.BAD_FACTORY, "model.py", "build_model",
    ),
    "unknown argument": ("width: 8", "widht: 8", ProblemCode.BAD_FACTORY, "widht", "`width`"),
    "missing argument": (
        "args: {part: test}", "args: {}",
        ProblemCode.BAD_FACTORY, "data.py:split, args: {}}", "part",
    ),
    "no calibration": (
        "  calibration: {factory: data.py:split, args: {part: calibration}, limit: 3}\n", "",
        ProblemCode.MISSING_KEY, "data:", "calibration",
    ),
    "trainer without its splits": (
        "checkpoint: weights.safetensors", "trainer: model.py:build_model",
        ProblemCode.MISSING_KEY, "data:", "train",
    ),
    "test is selection": (
        "part: test", "part: selection", ProblemCode.SAME_SPLIT,
        "factory: data.py:split, args: {part: selection}}\n  labels", "own part",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_one_mistake_is_one_problem(tmp_path: Path, name: str) -> None:
    old, new, code, token, fix = MISTAKES[name]
    assert old in SPEC
    text = SPEC.replace(old, new, 1) if name != "target listed twice" else SPEC.replace(old, new)
    if name in {"missing argument", "test is selection"}:
        text = new.join(SPEC.rsplit(old, 1))
    problems = problems_of(tmp_path, text)
    assert [each.code for each in problems] == [code], problems
    assert (problems[0].line, problems[0].column) == place_of(text, token)
    assert fix in problems[0].suggestion


def test_independent_mistakes_are_all_found_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        SPEC.replace("width: 8", "widht: 8")
        .replace("limit: 3", "limit: three")
        .replace("text: abc", "text: 3")
        .replace("[plain-board]", "[nothing]")
        .replace("p90", "p9")
    )
    problems = problems_of(tmp_path, text)
    assert [each.code for each in problems] == [
        ProblemCode.BAD_FACTORY,
        ProblemCode.WRONG_TYPE,
        ProblemCode.WRONG_TYPE,
        ProblemCode.UNKNOWN_TARGET,
        ProblemCode.BAD_VALUE,
    ]
    assert list(problems) == sorted(problems)


def test_a_misspelled_key_does_not_hide_mistakes_below_it(tmp_path: Path) -> None:
    text = SPEC.replace("budgets: {accuracy_drop_points: 0.5", "budgts: {accuracy_drop_points: x")
    codes = [each.code for each in problems_of(tmp_path, text)]
    assert codes == [ProblemCode.UNKNOWN_KEY, ProblemCode.WRONG_TYPE]


def test_a_duplicate_key_is_a_problem_of_lint(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, SPEC + "seed: 8\n")
    assert [each.code for each in problems] == [ProblemCode.DUPLICATE_KEY]


def test_a_factory_file_that_is_not_python(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    (tmp_path / "model.py").write_text("def build_model(:\n")
    problems = check_text(SPEC, path)[1]
    assert [each.code for each in problems] == [ProblemCode.BAD_FACTORY]
    assert "model.py:1" in problems[0].message


def test_names_that_only_running_would_tell_are_not_judged(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    for source in (
        "from os.path import *\n",
        "def __getattr__(name): ...\n",
        "try:\n    from x import build_model\nexcept ImportError:\n    build_model = None\n",
        "import functools\n@functools.cache\ndef build_model(): ...\n",
        "def build_model(**anything): ...\n",
        "class build_model: ...\n",
        "for build_model in [int]: pass\n",
    ):
        (tmp_path / "model.py").write_text(source)
        assert check_text(SPEC, path)[1] == (), source


def test_a_model_file(tmp_path: Path) -> None:
    model = SPEC[SPEC.index("model:\n") : SPEC.index("data:\n")]
    text = SPEC.replace(model, "model: {kind: file, path: net.TFLite}\n").replace(
        "  calibration: {factory: data.py:split, args: {part: calibration}, limit: 3}\n", ""
    )
    text = text.replace("accuracy_drop_points: 0.5, ", "")
    missing = problems_of(tmp_path, text)
    assert [each.code for each in missing] == [ProblemCode.MISSING_FILE]
    (tmp_path / "net.TFLite").touch()
    spec, problems = check_text(text, tmp_path / "spec.yaml")
    assert problems == ()
    assert spec is not None
    assert isinstance(spec.model, FileModel)
    other = text.replace("net.TFLite", "net.pt")
    assert ProblemCode.BAD_VALUE in {each.code for each in problems_of(tmp_path, other)}


@pytest.mark.parametrize("key", ["accuracy_drop_points", "agreement_percent"])
def test_a_budget_that_a_model_file_cannot_meet(tmp_path: Path, key: str) -> None:
    model = SPEC[SPEC.index("model:\n") : SPEC.index("data:\n")]
    text = SPEC.replace(model, "model: {kind: file, path: net.onnx}\n")
    text = text.replace("accuracy_drop_points: 0.5", f"{key}: 0.5")
    (tmp_path / "net.onnx").touch()
    (problem,) = problems_of(tmp_path, text)
    assert problem.code is ProblemCode.CONFLICT
    assert (problem.line, problem.column) == place_of(text, key)
    assert "no float model" in problem.message
    assert "kind: torch" in problem.suggestion
    assert problems_of(tmp_path, text.replace(f"{key}: 0.5", f"{key}: null")) == ()
    assert problems_of(tmp_path, text.replace(f"{key}: 0.5", "size_bytes: 9")) == ()


OUT_OF_RANGE = {
    "quantize": (
        *("percentile: 5", "percentile: 50", "percentile: 100.5", "batch_size: 0"),
        *(
            f"learned_rounding: {{{each}}}"
            for each in (
                *("iterations: -5", "iterations: 0", "samples: 0", "batch_size: -1"),
                *("learning_rate: 0", "learning_rate: .nan", "regularization: -1"),
                *("regularization: .inf",),
            )
        ),
    ),
    "score": ("trace_samples: 0", "trace_samples: -1"),
    "run": ("trace_samples: 0",),
    "measure": ("runs: 5", "runs: 99", "warmups: 9", "threads: 0"),
}


@pytest.mark.parametrize(
    ("stage", "line"), [(stage, line) for stage, lines in OUT_OF_RANGE.items() for line in lines]
)
def test_a_stage_parameter_out_of_range(tmp_path: Path, stage: str, line: str) -> None:
    text = SPEC.replace("stage: make\n    text: abc", f"stage: {stage}\n    {line}")
    (problem,) = problems_of(tmp_path, text)
    assert problem.code is ProblemCode.BAD_VALUE
    assert problem.line == place_of(text, line)[0]


def test_bounds_of_stage_parameters_are_in_the_schema() -> None:
    stages = json_schema(REGISTRIES)["$defs"]
    percentile = stages["stage:quantize"]["properties"]["percentile"]
    assert (percentile["exclusiveMinimum"], percentile["maximum"]) == (50, 100)
    assert stages["LearnedRounding"]["properties"]["iterations"]["minimum"] == 1
    assert stages["stage:score"]["properties"]["trace_samples"]["minimum"] == 1
    assert stages["stage:measure"]["properties"]["runs"]["minimum"] == 100


def test_an_invalid_spec_raises_with_all_its_problems(tmp_path: Path) -> None:
    path = write_spec(tmp_path, SPEC.replace("seed: 7", "seed: x\nsead: 3"))
    with pytest.raises(InvalidSpecError) as caught:
        load_spec(path, REGISTRIES)
    assert len(caught.value.problems) == 2
    assert caught.value.exit_code is ExitCode.SPEC_WRONG
    assert "ES107" in str(caught.value)
    assert "ES105" in str(caught.value)


def test_lint_runs_no_user_code(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    bomb = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
    for name in ("model.py", "data.py"):
        (tmp_path / name).write_text(bomb + (tmp_path / name).read_text())
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(bomb)
    (tmp_path / "package" / "net.py").write_text(bomb + "def build_model(width): ...\n")
    text = SPEC.replace("model.py:build", "package.net:build")
    assert check_text(text, path)[1] == ()
    assert not list(tmp_path.rglob("ran"))


LINES = SPEC.split("\n")
MUTATIONS = st.tuples(
    st.integers(0, len(SPEC) - 1),
    st.integers(0, 12),
    st.text(st.sampled_from("abk1: -[]{}&*!|>'\"#\n\t,.é"), max_size=6),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MUTATIONS, min_size=1, max_size=4))
def test_lint_never_crashes_and_stays_inside_the_file(
    tmp_path: Path, mutations: list[tuple[int, int, str]]
) -> None:
    text = SPEC
    for start, length, insert in mutations:
        text = text[:start] + insert + text[start + length :]
    path = tmp_path / "spec.yaml"
    if not path.exists():
        write_spec(tmp_path)
    spec, problems = check_text(text, path)
    assert (spec is None) == bool(problems)
    lines = split_lines(text)
    for problem in problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.message
        assert problem.suggestion
        assert render(problem, text)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([line for line in LINES if line]), st.integers(0, 10), st.characters())
def test_one_changed_character_in_a_key_is_at_most_two_problems(
    tmp_path: Path, line: str, where: int, char: str
) -> None:
    """The key itself, and what its value then lacks or breaks: never a cascade."""
    key = line.split(":", maxsplit=1)[0]
    index = len(line) - len(line.lstrip()) + where
    if index >= len(key) or not char.isalnum() or line.lstrip().startswith("-"):
        return
    changed = line[:index] + char + line[index + 1 :]
    path = tmp_path / "spec.yaml"
    if not path.exists():
        write_spec(tmp_path)
    problems = check_text(SPEC.replace(line, changed), path)[1]
    assert len(problems) <= 2, problems


def test_the_schema_has_the_stages_and_their_fields() -> None:
    schema = json_schema(REGISTRIES)
    stages = [each["$ref"] for each in schema["properties"]["stages"]["items"]["oneOf"]]
    assert "#/$defs/stage:make" in stages
    assert "#/$defs/stage:data" in stages
    make = schema["$defs"]["stage:make"]
    assert make["properties"]["stage"] == {"const": "make"}
    assert make["properties"]["times"]["type"] == "integer"
    assert make["additionalProperties"] is False
    assert make["required"] == ["stage"]
    assert "plain-board" in schema["properties"]["targets"]["items"]["examples"]
    assert "path" not in schema["properties"]


def test_lint_in_a_process_of_its_own_imports_nothing_heavy(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    script = (
        "import sys\n"
        "from tests.pipeline.world import registries\n"
        "from pathlib import Path\n"
        "from edgesmith.pipeline.lint import load_spec\n"
        f"load_spec(Path({str(path)!r}), registries())\n"
        "heavy = {'torch', 'onnx', 'plotly', 'numpy', 'scipy', 'brevitas', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
