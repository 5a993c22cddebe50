"""A runtime in a worker process: the calling side of `worker.py`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.base import LatencyOptions

_WORKER = Path(__file__).with_name("worker.py")
_TIMEOUT_S = 1800.0

Codes = npt.NDArray[np.integer]
Reals = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Runtime:
    """A named runtime in the environment of `python` (that interpreter's path).

    `kernels` is "default", "builtin" (no delegate), "reference" (for ONNX
    Runtime: graph optimizations off) or "float8" (for ONNX Runtime: without
    those optimizations that take float8 for integers).
    """

    name: str
    python: str
    kernels: str = "default"
    threads: int = 1

    def run(self, model: Path, inputs: Sequence[Codes | Reals]) -> dict[str, Codes]:
        """Every graph output for every sample, [samples, *shape].

        Raises:
            ToolFailedError: the runtime refused the model, crashed or hung.
        """
        with tempfile.TemporaryDirectory(prefix="edgesmith-run-") as folder:
            arrays = {f"input_{index}": array for index, array in enumerate(inputs)}
            np.savez(Path(folder) / "inputs.npz", allow_pickle=False, **arrays)
            answer = self._ask(
                Path(folder),
                task="run",
                model=str(model),
                inputs=str(Path(folder) / "inputs.npz"),
                outputs=str(Path(folder) / "outputs.npz"),
            )
            with np.load(Path(folder) / "outputs.npz", allow_pickle=False) as data:
                return {name: data[f"output_{i}"] for i, name in enumerate(answer["names"])}

    def latency(self, models: Sequence[Path], options: LatencyOptions) -> list[list[float]]:
        """Milliseconds of every timed run, per model; the models take turns.

        Raises:
            ToolFailedError: as for `run`.
        """
        with tempfile.TemporaryDirectory(prefix="edgesmith-time-") as folder:
            answer = self._ask(
                Path(folder),
                task="latency",
                models=[str(model) for model in models],
                warmups=options.warmups,
                runs=options.runs,
                burst=options.burst,
                threads=options.threads,
            )
        samples: list[list[float]] = answer["samples_ms"]
        return samples

    def peak_memory(self, model: Path) -> int:
        """Bytes that loading the model and invoking it once add to the peak resident set.

        Raises:
            ToolFailedError: as for `run`.
        """
        with tempfile.TemporaryDirectory(prefix="edgesmith-memory-") as folder:
            answer = self._ask(Path(folder), task="memory", model=str(model))
        return int(answer["bytes"])

    def _ask(self, folder: Path, **request: object) -> dict[str, Any]:
        common = {"runtime": self.name, "kernels": self.kernels, "threads": self.threads}
        path = folder / "request.json"
        path.write_text(json.dumps({**common, **request}))
        command = [self.python, str(_WORKER), str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ToolFailedError(
                f"{self.name} did not finish within {_TIMEOUT_S:.0f} s",
                fix="run fewer samples, or check that the machine is not overloaded",
            ) from error
        if done.returncode:
            tail = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise ToolFailedError(
                f"{self.name} failed on the model (exit status {done.returncode}):\n{tail}",
                fix=f"check that {self.name} takes the model's operators and versions",
            )
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer
