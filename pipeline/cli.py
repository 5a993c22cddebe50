"""The `edgesmith` command. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgesmith.pipeline.errors import EdgesmithError, ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from edgesmith.pipeline.planner import PlannedStep
    from edgesmith.pipeline.registry import Registries
    from edgesmith.pipeline.spec import Spec

F = TypeVar("F", bound=Callable[..., Any])

app = typer.Typer(
    name="edgesmith",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help=(
        "A trained PyTorch model becomes a verified integer deployment for each device.\n\n"
        "Start with a spec:\n\n"
        "  edgesmith lint spec.yaml\n\n"
        "  edgesmith plan spec.yaml\n\n"
        "  edgesmith run spec.yaml --target cpu-litert\n\n"
        "Exit codes: 0 fine, 1 a budget was missed, 2 the spec or the command line is wrong, "
        "3 a stage failed or the run was interrupted."
    ),
)

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Deploy to this target; repeat for more [the spec's]."),
]
CacheFolder = Annotated[Path, typer.Option("--cache", help="Where finished stages are kept.")]
Out = Annotated[Path, typer.Option("--out", help="Where run folders go.")]
From = Annotated[
    str | None, typer.Option("--from", help="Run again from this stage, whatever is cached.")
]
Force = Annotated[
    list[str] | None, typer.Option("--force", help="Run this stage again; repeat for more.")
]
SPINNING = "GOMP_SPINCOUNT", "10000"
"""How often torch's threads look for work before they sleep; read when it is imported. If not told,
they do so for milliseconds, taken from whatever else runs on the cores: beside one other process,
training took three times as long."""
DEFAULT_CACHE = Path(".edgesmith/cache")
DEFAULT_OUT = Path("runs")


def reported(command: F) -> F:
    """Print what goes wrong in a command and return its exit code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except EdgesmithError as error:
            _say(f"error {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            _say(
                "interrupted; finished stages are kept in the cache and the same command goes on "
                "from there"
            )
            raise typer.Exit(ExitCode.STAGE_FAILED) from None

    return wrapper  # type: ignore[return-value]


@app.command()
@reported
def run(
    spec: SpecPath,
    target: Targets = None,
    start: From = None,
    force: Force = None,
    explain: Annotated[bool, typer.Option(help="Say why each stage runs.")] = False,
    cache: CacheFolder = DEFAULT_CACHE,
    out: Out = DEFAULT_OUT,
) -> None:
    """Deploy a model: run every stage that is not cached and write a report per target.

    Stop it at any time: the same command goes on where it was.

    Examples:

      edgesmith run spec.yaml

      edgesmith run spec.yaml -t cpu-litert -t cpu-onnxruntime --out build/runs

      edgesmith run spec.yaml --from quantize --explain
    """
    from edgesmith.pipeline.cache import Cache
    from edgesmith.pipeline.observer import ConsoleObserver
    from edgesmith.pipeline.run_folder import write_overview, write_run
    from edgesmith.pipeline.runner import Runner, RunOptions
    from edgesmith.pipeline.summary import print_summary

    registries = _registries()
    loaded = _load(spec, registries, target)
    console = _console()
    options = RunOptions(start=start, force=tuple(force or ()), explain=explain)
    with Cache(cache) as opened:
        runner = Runner(loaded, registries, opened, out, ConsoleObserver(console))
        record = runner.run(loaded.targets, options)
    write_run(record, out / loaded.name)
    overview = write_overview(loaded.name, record.targets, out / loaded.name)
    print_summary(record, console, overview)
    raise typer.Exit(record.exit_code)


@app.command()
@reported
def plan(
    spec: SpecPath,
    target: Targets = None,
    start: From = None,
    force: Force = None,
    cache: CacheFolder = DEFAULT_CACHE,
) -> None:
    """Show what `run` would do: which stages are cached, which run, and why. Runs nothing.

    Examples:

      edgesmith plan spec.yaml

      edgesmith plan spec.yaml --force quantize
    """
    from edgesmith.pipeline.cache import Cache
    from edgesmith.pipeline.planner import plan as make_plan

    registries = _registries()
    loaded = _load(spec, registries, target)
    planned = make_plan(
        loaded,
        loaded.targets,
        registries,
        Cache(cache),
        start=start,
        force=tuple(force or ()),
    )
    for line in _plan_lines(planned):
        typer.echo(line)


@app.command()
@reported
def lint(spec: SpecPath) -> None:
    """Check a spec: every problem with its place and its fix. Runs nothing.

    Example:

      edgesmith lint spec.yaml
    """
    from edgesmith.pipeline.lint import check_source
    from edgesmith.pipeline.problems import render_all
    from edgesmith.pipeline.spec_source import read_source

    source = read_source(spec)
    _, problems = check_source(source, _registries())
    if not problems:
        typer.echo(f"{spec}: no problems")
        return
    typer.echo(render_all(problems, source.text))
    raise typer.Exit(ExitCode.SPEC_WRONG)


@app.command()
@reported
def compile(
    model: Annotated[Path, typer.Argument(help="A quantized model: .onnx (QDQ) or .tflite.")],
    target: Annotated[str, typer.Option("--target", "-t", help="The target.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the artifact.")],
) -> None:
    """Build a model that is quantized already for a target, and prove that nothing changed.

    A microcontroller target leaves a folder of C11, with firmware to try it in an emulator. What
    follows its name chooses a board and limits.

    Examples:

      edgesmith compile model.tflite --target cpu-litert --out build/

      edgesmith compile model.tflite --target cortex-m4 --out build/

      edgesmith compile model.tflite --target cortex-m4@nrf52840-dk,ram=40000 --out build/
    """
    _registries().targets.get(target)
    from edgesmith.pipeline.compile import compile_model

    compiled = compile_model(model, target, out)
    place = str(out / compiled.artifact)
    if compiled.interface is not None:
        place = f"{out}, include {compiled.interface}"
    typer.echo(
        f"{place}: {compiled.size_name} {compiled.bytes:,} bytes, "
        f"{compiled.parity.compared} tensors compared, {compiled.parity.different} different; "
        f"at most {compiled.max_lsb} LSB from the reference on {compiled.samples} random inputs"
    )
    if compiled.device is not None:
        from edgesmith.pipeline.summary import device_lines

        for line in device_lines(compiled.device):
            typer.echo(line)


@app.command()
@reported
def targets() -> None:
    """List the targets: what each takes, and which of its tools are missing."""
    from edgesmith.pipeline.summary import print_targets

    print_targets(_registries(), _console())


@app.command()
@reported
def report(
    run_dir: Annotated[Path, typer.Argument(help="runs/NAME or runs/NAME/TARGET.")],
) -> None:
    """Write report.html again from result.json, and the overview of a run from all of them.

    Example:

      edgesmith report runs/mnist-cnn
    """
    from edgesmith.pipeline.cache import write_atomically
    from edgesmith.pipeline.diskfaults import cache_errors
    from edgesmith.pipeline.run_folder import (
        REPORT,
        read_result,
        result_folders,
        write_overview_again,
    )
    from edgesmith.reports.render import render_html

    for folder in result_folders(run_dir):
        page = render_html(read_result(folder))
        with cache_errors(folder):
            write_atomically(folder / REPORT, page.encode())
        typer.echo(str(folder / REPORT))
    overview = write_overview_again(run_dir)
    if overview is not None:
        typer.echo(str(overview))


@app.command()
@reported
def schema() -> None:
    """Print the JSON Schema of specs, for editors.

    Example:

      edgesmith schema > edgesmith.schema.json
    """
    import json

    from edgesmith.pipeline.spec import json_schema

    typer.echo(json.dumps(json_schema(_registries()), indent=2))


@app.command()
@reported
def version() -> None:
    """Print the versions of edgesmith and of what it builds on."""
    import platform

    from edgesmith.pipeline.versions import installed

    for name, found in {**installed(), "python": platform.python_version()}.items():
        typer.echo(f"{name:<16} {found}")


def main() -> None:
    """Entry point of the `edgesmith` command."""
    os.environ.setdefault(*SPINNING)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except Exception:  # a defect: exit code 1 would say that a budget was missed
        traceback.print_exc()
        _say("this is a defect in edgesmith; please report it with the lines above")
        sys.exit(ExitCode.STAGE_FAILED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _registries() -> Registries:
    from edgesmith.pipeline.registry import Registries

    return Registries.discovered()


def _load(path: Path, registries: Registries, targets: list[str] | None) -> Spec:
    from edgesmith.pipeline.lint import load_spec

    return load_spec(path, registries, targets or ())


def _console() -> Console:
    from rich.console import Console

    return Console()


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _plan_lines(planned: tuple[PlannedStep, ...]) -> list[str]:
    lines = []
    for step in planned:
        label = step.stage if step.target is None else f"{step.stage} [{step.target}]"
        first, *rest = step.why or ("",)
        lines.append(f"{label:<32} {step.status:<8} {first}".rstrip())
        lines += [f"{'':<41} {reason}" for reason in rest]
    return lines
