"""Runs a model file in a runtime, alone in its process: outputs, latency or memory.

    python worker.py request.json

This file is executed by the interpreter of the environment that has the runtime
(tflite-runtime 2.14 needs an old NumPy), so it imports NumPy and that runtime
only, nothing of edgesmith, and keeps to Python 3.9. The request says what to do;
arrays travel as .npz beside it; the answer is JSON on the last line of stdout.
A native crash kills this process and no other.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, ClassVar, Dict, List, Sequence

import numpy as np

Arrays = Dict[str, "np.ndarray[Any, Any]"]


class TFLiteSession:
    """LiteRT or tflite-runtime on one file."""

    def __init__(self, request: Dict[str, Any], path: str) -> None:
        options: Dict[str, Any] = {"model_path": path, "num_threads": request["threads"]}
        if request["runtime"] == "tflite-runtime":
            from tflite_runtime.interpreter import Interpreter, OpResolverType
        else:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        if request["kernels"] == "reference":
            options["experimental_op_resolver_type"] = OpResolverType.BUILTIN_REF
        elif request["kernels"] == "builtin":
            resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options["experimental_op_resolver_type"] = resolver
        self.interpreter = Interpreter(**options)
        self.interpreter.allocate_tensors()
        self.inputs = [item["index"] for item in self.interpreter.get_input_details()]
        self.outputs = [
            (item["name"], item["index"]) for item in self.interpreter.get_output_details()
        ]

    def set_inputs(self, sample: Sequence["np.ndarray[Any, Any]"]) -> None:
        for index, value in zip(self.inputs, sample):
            self.interpreter.set_tensor(index, value)

    def invoke(self) -> None:
        self.interpreter.invoke()

    def read(self) -> Arrays:
        return {name: self.interpreter.get_tensor(index) for name, index in self.outputs}

    def example(self) -> List["np.ndarray[Any, Any]"]:
        return [
            np.zeros(item["shape"], item["dtype"]) for item in self.interpreter.get_input_details()
        ]


class OnnxSession:
    """ONNX Runtime on one file, CPU provider."""

    _TYPES: ClassVar[Dict[str, Any]] = {
        "tensor(float)": np.float32,
        "tensor(int8)": np.int8,
        "tensor(int16)": np.int16,
    }

    def __init__(self, request: Dict[str, Any], path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        disabled: List[str] = []
        if request["kernels"] == "reference":
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        elif request["kernels"] == "float8":
            # Else it makes QLinearConv of float8, which refuses the type, and drops a Relu
            # before a QuantizeLinear with zero point 0, as if floats had no sign.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            disabled = ["ReluQuantRewrite", "ClipQuantRewrite"]
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        self.names = [item.name for item in self.session.get_outputs()]
        self.feed: Arrays = {}
        self.results: List["np.ndarray[Any, Any]"] = []

    def set_inputs(self, sample: Sequence["np.ndarray[Any, Any]"]) -> None:
        self.feed = {item.name: v for item, v in zip(self.session.get_inputs(), sample)}

    def invoke(self) -> None:
        self.results = self.session.run(None, self.feed)

    def read(self) -> Arrays:
        return dict(zip(self.names, self.results))

    def example(self) -> List["np.ndarray[Any, Any]"]:
        return [np.zeros(i.shape, self._TYPES[i.type]) for i in self.session.get_inputs()]


def open_session(request: Dict[str, Any], path: str) -> Any:
    return (OnnxSession if request["runtime"] == "onnxruntime" else TFLiteSession)(request, path)


def run(request: Dict[str, Any]) -> Dict[str, Any]:
    """Every sample of the inputs once; all outputs stacked into an .npz."""
    session = open_session(request, request["model"])
    with np.load(request["inputs"], allow_pickle=False) as data:
        batches = [data[f"input_{index}"] for index in range(len(data.files))]
    collected: Dict[str, List["np.ndarray[Any, Any]"]] = {}
    for sample in zip(*batches):
        session.set_inputs(sample)
        session.invoke()
        for name, value in session.read().items():
            collected.setdefault(name, []).append(np.array(value))
    names = list(collected)
    arrays = {f"output_{index}": np.stack(collected[name]) for index, name in enumerate(names)}
    np.savez(request["outputs"], allow_pickle=False, **arrays)
    return {"names": names}


def latency(request: Dict[str, Any]) -> Dict[str, Any]:
    """Time the models interleaved: a burst of calls of each in turn, milliseconds."""
    sessions = [open_session(request, path) for path in request["models"]]
    for session in sessions:
        session.set_inputs(session.example())
        for _ in range(request["warmups"]):
            session.invoke()
    samples: List[List[float]] = [[] for _ in sessions]
    burst = request["burst"]
    for _ in range(0, request["runs"], burst):
        for session, times in zip(sessions, samples):
            if burst > 1:
                session.invoke()
            for _ in range(burst):
                start = time.perf_counter_ns()
                session.invoke()
                times.append((time.perf_counter_ns() - start) / 1e6)
    return {"samples_ms": samples}


def _status_bytes(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def memory(request: Dict[str, Any]) -> Dict[str, Any]:
    """How much loading and one invocation raise the peak resident memory, bytes."""
    if request["runtime"] == "onnxruntime":
        import onnxruntime  # noqa: F401 (its import is not the model's cost)
    elif request["runtime"] == "tflite-runtime":
        import tflite_runtime.interpreter  # noqa: F401
    else:
        import ai_edge_litert.interpreter  # noqa: F401
    # "5" resets the peak to the present, so that imports do not hide the model's own.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")
    before = _status_bytes("VmRSS")
    session = open_session(request, request["model"])
    session.set_inputs(session.example())
    session.invoke()
    return {"bytes": max(0, _status_bytes("VmHWM") - before)}


TASKS = {"run": run, "latency": latency, "memory": memory}

if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as request_file:
        _request = json.load(request_file)
    print(json.dumps(TASKS[_request["task"]](_request)))
