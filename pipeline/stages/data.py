"""`data`: the splits of the spec as checked arrays, with a manifest.

Output: `<split>.npz` (`inputs` float32, `labels` int64) per split and
`manifest.json` (samples, shapes, digests, label counts, overlaps).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from pathlib import Path

    from edgesmith.pipeline.spec import Spec
    from edgesmith.pipeline.splits import Split


@dataclass(frozen=True)
class Data(Stage):
    """Load the splits and check them; selection and test must not share samples.

    The key covers the factories' sources and arguments, every file and folder that
    an argument names, and those that the sources declare in `CACHE_FILES`.
    """

    name: ClassVar[str] = "data"

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.file_identity import argument_paths, identities
        from edgesmith.pipeline.sources import declared_files, source_digests
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.versions import installed

        parts = installed("numpy")
        files: dict[str, Path] = {}
        for name, split in spec.data.splits().items():
            parts[f"split {name}"] = canonical_json([split.factory, split.args, split.limit])
            sources = source_digests(split.factory, spec.folder)
            parts[f"source of {name}"] = canonical_json(sources)
            for text, path in argument_paths(split.args, spec.folder).items():
                files[f"file {text}"] = path
            for text, path in declared_files(split.factory, spec.folder).items():
                files[f"file of {name}: {text}"] = path
        if spec.model.kind == "torch":
            parts["input shape"] = canonical_json(spec.model.input_shape)
        parts["labels"] = canonical_json(spec.data.labels)
        return parts | identities(files)

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.splits import (
            check_disjoint,
            check_labels,
            check_shape,
            load_split,
            write_split,
        )

        spec = context.spec
        splits: dict[str, Split] = {}
        manifest: dict[str, Any] = {"splits": {}, "overlaps": {}}
        given = spec.data.splits()
        for name in context.progress.track(given, "loading data", len(given)):
            split = load_split(name, given[name], spec.folder)
            if spec.model.kind == "torch":
                check_shape(name, split, spec.model.input_shape)
            if spec.data.labels is not None:
                check_labels(name, split, spec.data.labels)
            splits[name] = split
            context.log.info("split %s: %d samples", name, len(split))
        if "selection" in splits:
            check_disjoint(splits["selection"], splits["test"])
        manifest["overlaps"] = _overlaps(splits, context)
        for name, split in splits.items():
            manifest["splits"][name] = write_split(context.folder, name, split)
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        (context.folder / "manifest.json").write_text(text, encoding="utf-8")


def _overlaps(splits: dict[str, Split], context: StageContext) -> dict[str, int]:
    """Shared samples of the other pairs of splits: allowed, but said."""
    from edgesmith.pipeline.splits import shared_samples

    found = {}
    for first, second in combinations(splits, 2):
        shared = shared_samples(splits[first], splits[second])
        if shared:
            found[f"{first}+{second}"] = len(shared)
            context.log.warning("%s and %s share %d samples", first, second, len(shared))
    return found
