"""What the CPU runtimes share: a worker process, latency statistics, TFLite and ONNX families."""
