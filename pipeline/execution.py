"""Carrying out a `BuildPlan` on this machine: write its files, run its commands, no shell."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildPlan, BuildProducts, Command


def execute_plan(plan: BuildPlan, folder: Path) -> BuildProducts:
    """Write the plan's files into `folder` and run its commands there.

    Raises:
        ToolMissingError: a command's program is not installed.
        ToolFailedError: a command failed or ran past its limit; its output is in `build.log`.
        ValueError: a file's path leaves the folder.
    """
    for name, data in plan.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"build plan writes outside of its folder: {name!r}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for command in plan.commands:
        _run(command, folder)
    return BuildProducts(str(folder), plan.main)


def _run(command: Command, folder: Path) -> None:
    program = command.arguments[0]
    Tool(program, f"install {program} and put it on PATH").require()
    log = folder / "build.log"
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command.arguments)}\n".encode())
        output.flush()
        try:
            status = subprocess.run(
                command.arguments,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=command.timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ToolFailedError(
                f"{program} did not finish within {command.timeout_s:.0f} s",
                fix=f"read {log}; raise the limit if the work is really that long",
            ) from error
    if status:
        raise ToolFailedError(f"{program} failed with exit status {status}", fix=f"read {log}")
