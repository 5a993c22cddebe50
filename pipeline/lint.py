"""Find every problem of a spec without running it: no torch, no user code, no network.

Checks what can be known from the spec, the folders and the text of the user's
Python files. `load_spec` is the only way a spec gets into a run, so nothing
starts that `edgesmith lint` would have refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from edgesmith.pipeline.allocated import ALLOCATE
from edgesmith.pipeline.budgets import NEED_FLOAT
from edgesmith.pipeline.errors import FactoryError, PluginError, SpecError
from edgesmith.pipeline.jsonvalue import adapter
from edgesmith.pipeline.problems import InvalidSpecError, Problem, ProblemCode, did_you_mean, listed
from edgesmith.pipeline.pruned import PRUNE, SEARCH
from edgesmith.pipeline.registry import Registries, target_base
from edgesmith.pipeline.sources import declarations, defined_names, locate, parse, signature
from edgesmith.pipeline.spec import (
    SPEC_VERSION,
    SPLIT_NAMES,
    Spec,
    SpecDocument,
    StageEntry,
)
from edgesmith.pipeline.spec_check import Findings, mend, validate
from edgesmith.pipeline.spec_source import SpecSource, read_source
from edgesmith.pipeline.spec_tree import Entry, Node, Position, Step


def load_spec(path: Path, registries: Registries, targets: Collection[str] = ()) -> Spec:
    """Read and check a spec.

    Args:
        targets: instead of the spec's.

    Raises:
        InvalidSpecError: it has problems; all of them are listed.
    """
    source = read_source(path)
    spec, problems = check_source(source, registries, targets)
    if spec is None:
        raise InvalidSpecError(problems, source.text)
    return spec


def check_source(
    source: SpecSource, registries: Registries, targets: Collection[str] = ()
) -> tuple[Spec | None, tuple[Problem, ...]]:
    """The spec and no problems, or None and all problems in the order of the file.

    Args:
        targets: instead of the spec's.

    Raises:
        SpecError, PluginError: there is no such target.
    """
    findings = Findings(source.path, list(source.problems))
    document = None
    if source.root is not None:
        document = _check_tree(source, registries, findings, targets)
    if findings.problems or document is None:
        return None, tuple(sorted(findings.problems))
    return Spec.of(document, Path(source.path), source.text), ()


def _check_tree(
    source: SpecSource, registries: Registries, findings: Findings, targets: Collection[str]
) -> SpecDocument | None:
    assert source.root is not None
    version = source.root.get("spec_version")
    if version is not None and type(version.scalar) is int and version.scalar != SPEC_VERSION:
        # everything else would be judged by the wrong schema
        message = f"spec_version {version.scalar} is not known; this edgesmith reads {SPEC_VERSION}"
        fix = f"write `spec_version: {SPEC_VERSION}`, or install the edgesmith that it is for"
        findings.add(version.at, ProblemCode.SPEC_VERSION, message, fix)
        return None
    # stages are checked against their own classes, the rest against the document
    root = mend(source.root, SpecDocument, "the spec", findings, leave={"stages"})
    entries = _check_stages(root.get("stages"), registries, findings)
    document = validate(_without_stages(root), SpecDocument, "the spec", findings)
    folder = Path(source.path).resolve().parent
    _check_targets(root, registries, findings)
    _check_model(root, folder, findings)
    _check_budgets(root, findings)
    _check_choosers(root, findings)
    _check_data(root, folder, findings)
    if document is None:
        return None
    chosen = tuple(dict.fromkeys(targets or document.targets))
    document = replace(document, stages=tuple(entries), targets=chosen)
    if not findings.problems:
        _check_formats(document, root, registries, findings)
    return document


def _without_stages(root: Node) -> Node:
    entries = {key: entry for key, entry in (root.entries or {}).items() if key != "stages"}
    return replace(root, entries=entries)


def _check_stages(
    node: Node | None, registries: Registries, findings: Findings
) -> list[StageEntry]:
    if node is None:
        return []
    if node.items is None:
        message, fix = "`stages` must be a list", "write one `- stage: name` per stage"
        findings.add(node.at, ProblemCode.WRONG_TYPE, message, fix)
        return []
    seen: dict[str, Position] = {}
    entries = []
    for item in node.items:
        entry = _check_stage(item, registries, findings, seen)
        if entry is not None:
            entries.append(entry)
    return entries


def _check_stage(
    item: Node, registries: Registries, findings: Findings, seen: dict[str, Position]
) -> StageEntry | None:
    item = _mend_stage_key(item, findings)
    name = item.text("stage")
    if name is None:
        at = item.get("stage") or item
        fix = f"write `stage: name`; stages: {listed(registries.stages.names())}"
        findings.add(at.at, ProblemCode.MISSING_KEY, "this entry names no `stage`", fix)
        return None
    at = item.get("stage") or item
    if name not in registries.stages.names():
        _unknown(at, "stage", registries.stages.names(), ProblemCode.UNKNOWN_STAGE, findings)
        return None
    if name in seen:
        message = f"stage `{name}` is listed twice; first on line {seen[name].line}"
        findings.add(at.at, ProblemCode.CONFLICT, message, "join the two entries")
        return None
    seen[name] = at.at
    try:
        kind = registries.stages.get(name)
    except PluginError as error:
        findings.add(at.at, ProblemCode.UNKNOWN_STAGE, error.message, error.fix)
        return None
    entries = {key: entry for key, entry in (item.entries or {}).items() if key != "stage"}
    parameters = mend(replace(item, entries=entries), kind, f"stage `{name}`", findings)
    validate(parameters, kind, f"stage `{name}`", findings)
    data = parameters.data()
    assert isinstance(data, dict)
    return StageEntry(stage=name, parameters=data)


def _mend_stage_key(item: Node, findings: Findings) -> Node:
    """Rename a misspelled `stage` key; other keys are judged once the stage is known."""
    if item.entries is None or "stage" in item.entries:
        return item
    guess = did_you_mean("stage", item.entries)
    if guess is None:
        return item
    entry = item.entries[guess]
    message = f"unknown key `{guess}` in an entry of `stages`"
    findings.add(entry.at, ProblemCode.UNKNOWN_KEY, message, "did you mean `stage`?")
    entries = {("stage" if key == guess else key): each for key, each in item.entries.items()}
    return replace(item, entries=entries)


def _unknown(
    node: Node, kind: str, names: tuple[str, ...], code: ProblemCode, findings: Findings
) -> None:
    name = str(node.scalar)
    guess = did_you_mean(name, names)
    fix = f"did you mean `{guess}`?" if guess else f"choose from {listed(names)}"
    findings.add(node.at, code, f"there is no {kind} `{name}`", fix)


def _check_targets(root: Node, registries: Registries, findings: Findings) -> None:
    targets = root.get("targets")
    names = registries.targets.names()
    seen: set[str] = set()
    for item in (targets.items or ()) if targets is not None else ():
        name = item.text()
        if name is None:
            continue
        if target_base(name) not in names:
            _unknown(item, "target", names, ProblemCode.UNKNOWN_TARGET, findings)
        elif (problem := _target_problem(name, registries)) is not None:
            findings.add(item.at, ProblemCode.UNKNOWN_TARGET, problem.message, problem.fix)
        elif name in seen:
            message = f"target `{name}` is listed twice"
            findings.add(item.at, ProblemCode.CONFLICT, message, "remove one of the two")
        seen.add(name)


def _check_formats(
    document: SpecDocument, root: Node, registries: Registries, findings: Findings
) -> None:
    """What stages of a torch model ask for, against what the targets take."""
    if document.model.kind != "torch":
        return
    written = {entry.stage: index for index, entry in enumerate(document.stages)}
    # Others run only where they are written; quantizing runs anyway, with its defaults.
    for name in sorted({*written, "quantize"} & {*registries.stages.names()}):
        index = written.get(name)
        parameters = document.stages[index].parameters if index is not None else {}
        stage = adapter(registries.stages.get(name)).validate_python(dict(parameters))
        for target in document.targets:
            description = registries.targets.get(target)().describe()
            for refusal in stage.refusals(description, first=target == document.targets[0]):
                at = _refused_at(root, index, target, refusal.path)
                code = ProblemCode.LACKING_FORMAT
                findings.add(at, code, f"stage `{name}`: {refusal.message}", refusal.fix)


def _refused_at(
    root: Node, stage: int | None, target: str, path: tuple[str | int, ...]
) -> Position:
    """The parameter where it is written; else its stage, or the target that has other needs."""
    listed = root.get("targets")
    names = [each.scalar for each in (listed.items or ())] if listed is not None else []
    number = names.index(target) if target in names else None
    for place in (("stages", stage, *path), ("stages", stage), ("targets", number)):
        node = root.get(*place) if None not in place else None  # type: ignore[arg-type]
        if node is not None:
            return node.at
    return root.at


def _target_problem(name: str, registries: Registries) -> SpecError | None:
    """What is wrong with the options behind a target's name."""
    try:
        registries.targets.get(name)
    except SpecError as error:
        return error
    return None


def _check_model(root: Node, folder: Path, findings: Findings) -> None:
    kind = root.text("model", "kind")
    if kind == "file":
        _check_file(root, ("model", "path"), folder, findings)
    if kind != "torch":
        return
    _check_file(root, ("model", "checkpoint"), folder, findings)
    _check_factory(root, ("model",), folder, findings)
    if root.get("model", "trainer") is not None:
        _check_factory(root, ("model",), folder, findings, key="trainer")
    _check_needed_splits(root, findings)


def _check_budgets(root: Node, findings: Findings) -> None:
    """A model file comes without the float model that some budgets compare with."""
    budgets = root.get("budgets")
    if root.text("model", "kind") != "file" or budgets is None:
        return
    for key in NEED_FLOAT:
        node = budgets.get(key)
        if node is None or node.scalar is None:
            continue
        message = f"`{key}` cannot be checked: with `kind: file` there is no float model"
        fix = "remove it, or give the float model: `kind: torch` with its factory and weights"
        findings.add(budgets.key_position(key), ProblemCode.CONFLICT, message, fix)


def _check_choosers(root: Node, findings: Findings) -> None:
    """Two stages cannot both choose formats."""
    listed = root.get("stages")
    stages = (listed.items or ()) if listed is not None else ()
    named = {each.text("stage"): each for each in stages}
    if SEARCH in named and ALLOCATE in named:
        message = f"`{SEARCH}` and `{ALLOCATE}` would both choose the formats of groups"
        findings.add(named[ALLOCATE].at, ProblemCode.CONFLICT, message, "remove one of the two")


def _check_needed_splits(root: Node, findings: Findings) -> None:
    data = root.get("data")
    if data is None or data.entries is None:
        return
    trained = root.get("model", "trainer") is not None and not root.get("model", "checkpoint")
    listed = root.get("stages")
    stages = (listed.items or ()) if listed is not None else ()
    data_free = any(each.get("data_free") is not None for each in stages)
    allocated = any(each.text("stage") == ALLOCATE for each in stages)
    needed = {} if data_free and not allocated else {"calibration": "ranges are found on it"}
    if trained:
        needed |= {"train": "`trainer` learns on it", "selection": "`trainer` compares on it"}
    if any(each.get("qat") is not None for each in stages):
        training = {"train": "`qat` trains on it", "selection": "`qat` keeps its best epoch by it"}
        needed = training | needed
    if any(each.get("neural_compressor", "tune") is not None for each in stages):
        needed = {"selection": "`tune` compares recipes on it"} | needed
    if any(each.text("stage") == PRUNE for each in stages):
        pruning = {"train": "pruning fine-tunes on it", "selection": "pruning decides on it"}
        needed = pruning | needed
    if any(each.text("stage") == SEARCH for each in stages):
        needed = {
            "train": "the super-network learns on it",
            "selection": "candidates are scored on it",
            **needed,
        }
    for name, why in needed.items():
        if data.get(name) is None:
            at = root.key_position("data")
            message = f"`data` lacks the split `{name}`: {why}"
            findings.add(at, ProblemCode.MISSING_KEY, message, f"add `{name}: {{factory: ...}}`")


def _check_data(root: Node, folder: Path, findings: Findings) -> None:
    for name in SPLIT_NAMES:
        if root.get("data", name) is not None:
            _check_factory(root, ("data", name), folder, findings)
    selection, test = root.get("data", "selection"), root.get("data", "test")
    if selection is None or test is None:
        return
    if selection.text("factory") is not None and _split_key(selection) == _split_key(test):
        at = test.key_position("factory")
        message = "`data.test` and `data.selection` are the same samples: same factory and args"
        fix = "give each its own part; what chooses the model must not judge it"
        findings.add(at, ProblemCode.SAME_SPLIT, message, fix)


def _split_key(split: Node) -> str:
    args = split.get("args")
    return json.dumps([split.text("factory"), args.data() if args else {}], sort_keys=True)


def _check_file(root: Node, path: tuple[Step, ...], folder: Path, findings: Findings) -> None:
    text = root.text(*path)
    if text is None or os.path.isfile(folder / text):
        return
    node = root.get(*path)
    assert node is not None
    what = "is a folder, not a file" if os.path.isdir(folder / text) else "does not exist"
    fix = f"paths start at the spec's folder, {folder}"
    findings.add(node.at, ProblemCode.MISSING_FILE, f"`{text}` {what}", fix)


def _check_factory(
    root: Node, owner: tuple[Step, ...], folder: Path, findings: Findings, key: str = "factory"
) -> None:
    text, node = root.text(*owner, key), root.get(*owner, key)
    if not text or node is None:
        return
    try:
        source = locate(text, folder)
        tree = parse(source)
        declarations(tree, source.file)
    except FactoryError as error:
        findings.add(node.at, ProblemCode.BAD_FACTORY, error.message, error.fix)
        return
    names = defined_names(tree)
    if names is not None and source.name not in names:
        guess = did_you_mean(source.name, names)
        fix = f"did you mean `{guess}`?" if guess else "define it there, or correct the name"
        message = f"{source.file.name} defines no `{source.name}`"
        findings.add(node.at, ProblemCode.BAD_FACTORY, message, fix)
        return
    if key == "factory":
        takes = signature(tree, source.name)
        if takes is not None and not takes.open:
            _check_arguments(root, owner, takes.names, takes.required, findings)


def _check_arguments(
    root: Node,
    owner: tuple[Step, ...],
    names: tuple[str, ...],
    required: tuple[str, ...],
    findings: Findings,
) -> None:
    """`args` against what the factory's source says it takes."""
    args, factory = root.get(*owner, "args"), root.get(*owner, "factory")
    assert factory is not None
    if args is not None and args.entries is None:
        return
    given: dict[str, Entry] = dict(args.entries or {}) if args is not None else {}
    missing = [name for name in required if name not in given]
    for key, entry in given.items():
        if key in names:
            continue
        guess = did_you_mean(key, [name for name in names if name not in given])
        missing = [name for name in missing if name != guess]
        fix = f"did you mean `{guess}`?" if guess else f"it takes {listed(names)}"
        message = f"`{factory.scalar}` takes no argument `{key}`"
        findings.add(entry.at, ProblemCode.BAD_FACTORY, message, fix)
    if missing:
        message = f"`{factory.scalar}` needs the argument `{missing[0]}`"
        fix = f"add `args: {{{missing[0]}: ...}}`"
        findings.add(factory.at, ProblemCode.BAD_FACTORY, message, fix)
