"""The `edgesmith` command with the stages and targets of `world`, for tests in subprocesses."""

from __future__ import annotations

from edgesmith.pipeline import cli
from tests.pipeline.world import registries

if __name__ == "__main__":
    setattr(cli, "_registries", registries)  # noqa: B010 replaces a private function
    cli.main()
