"""Factories: found, imported and called as a script would; read without importing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import FactoryError, ToolMissingError
from edgesmith.pipeline.factories import call_factory, resolve_factory
from edgesmith.pipeline.sources import (
    Signature,
    defined_names,
    locate,
    parse,
    signature,
    source_digests,
)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_file_is_called_with_its_arguments(tmp_path: Path) -> None:
    write(tmp_path, m="def make(a, b=2):\n    return a + b\n")
    assert call_factory("m.py:make", {"a": 1}, tmp_path) == 3
    write(tmp_path / "deep", n="class Make:\n    pass\n")
    assert type(call_factory("deep/n.py:Make", {}, tmp_path)).__name__ == "Make"


def test_siblings_are_imported_also_late(tmp_path: Path) -> None:
    write(
        tmp_path,
        m="import helper\ndef make():\n    import late\n    return helper.X + late.Y\n",
        helper="X = 1\n",
        late="Y = 10\n",
    )
    assert call_factory("m.py:make", {}, tmp_path) == 11
    assert resolve_factory("m.py:make", tmp_path)() == 11


def test_two_folders_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(
            tmp_path / name,
            m="from helper import X\ndef make():\n    return X\n",
            helper=f"X = {name!r}\n",
        )
    for name in ("one", "two", "one"):
        assert call_factory("m.py:make", {}, tmp_path / name) == name


def test_an_edit_is_seen_in_the_same_process(tmp_path: Path) -> None:
    write(tmp_path, m="from helper import X\ndef make():\n    return X\n", helper="X = 1\n")
    assert call_factory("m.py:make", {}, tmp_path) == 1
    write(tmp_path, helper="X = 2\n")
    assert call_factory("m.py:make", {}, tmp_path) == 2
    assert not list(tmp_path.rglob("__pycache__"))


def test_two_factories_share_the_modules_of_their_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        m="class Net:\n    pass\ndef make():\n    return Net()\n",
        d="import m\ndef check(net):\n    return isinstance(net, m.Net)\n",
    )
    made = call_factory("m.py:make", {}, tmp_path)
    assert call_factory("d.py:check", {"net": made}, tmp_path)


def test_a_file_named_like_a_library_module(tmp_path: Path) -> None:
    write(tmp_path, json="def make():\n    return 'mine'\n")
    assert call_factory("json.py:make", {}, tmp_path) == "mine"
    assert sys.modules["json"].__file__ != str(tmp_path / "json.py")


def test_a_module_beside_the_spec_and_an_installed_one(tmp_path: Path) -> None:
    write(tmp_path, pkgx____init__="", pkgx__net="def make():\n    return 5\n")
    (tmp_path / "pkgx").mkdir(exist_ok=True)
    (tmp_path / "pkgx" / "__init__.py").touch()
    assert call_factory("pkgx.net:make", {}, tmp_path) == 5
    assert call_factory("textwrap:dedent", {"text": " a"}, tmp_path) == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m.py", "does not name a factory"),
        ("m.py:", "does not name a factory"),
        ("m.py:a.b", "does not name a factory"),
        ("none.py:make", "no file 'none.py'"),
        ("not there:make", "neither"),
        ("no.such.module:make", "no module"),
        ("sys:path", "no module"),  # built in: it has no source
        ("m.py:none", "defines no 'none'"),
        ("m.py:X", "is a int"),
        ("broken.py:make", "SyntaxError"),
        ("raises.py:make", r"ZeroDivisionError: division by zero \(raises.py:1\)"),
        ("m.py:fails", r"raised KeyError: 'k' \(m.py:3\)"),
        ("m.py:leaves", "raised SystemExit"),
        ("m.py:needs", "TypeError"),
    ],
)
def test_what_goes_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    write(
        tmp_path,
        m="X = 1\ndef fails():\n    {}['k']\ndef leaves():\n    raise SystemExit(0)\n"
        "def needs(a):\n    pass\n",
        broken="def make(:\n",
        raises="1 / 0\n",
    )
    with pytest.raises(FactoryError, match=words) as caught:
        call_factory(text, {}, tmp_path)
    assert caught.value.fix


def test_a_precise_error_of_a_factory_passes_through(tmp_path: Path) -> None:
    write(
        tmp_path,
        m="from edgesmith.pipeline.errors import ToolMissingError\n"
        "def make():\n    raise ToolMissingError('no wget', fix='install it')\n",
    )
    with pytest.raises(ToolMissingError, match="no wget"):
        call_factory("m.py:make", {}, tmp_path)


def test_digests_follow_imports_without_running_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        m="import os, helper\nfrom pack import inner\nfrom pack.deep.leaf import X\n1 / 0\n",
        helper="import m\nimport numpy\n",
        unused="",
        pack__inner="from . import sibling\nfrom .deep import other\n",
        pack__sibling="",
        pack__deep__leaf="from ..sibling import Y\nX = (\n",
        pack__deep__other="",
    )
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "deep" / "__init__.py").write_text("")
    digests = source_digests("m.py:make", tmp_path)
    assert list(digests) == [
        "helper.py",
        "m.py",
        "pack/__init__.py",
        "pack/deep/__init__.py",
        "pack/deep/leaf.py",
        "pack/deep/other.py",
        "pack/inner.py",
        "pack/sibling.py",
    ]
    assert digests["m.py"] == hashlib.sha256((tmp_path / "m.py").read_bytes()).hexdigest()


def test_digests_of_a_module_stay_in_its_package(tmp_path: Path) -> None:
    write(tmp_path, pack__net="import other\nfrom pack import part\n", pack__part="", other="")
    (tmp_path / "pack" / "__init__.py").write_text("")
    assert list(source_digests("pack.net:make", tmp_path)) == [
        "pack/__init__.py",
        "pack/net.py",
        "pack/part.py",
    ]


def test_signatures_are_those_of_inspect(tmp_path: Path) -> None:
    write(
        tmp_path,
        m="def a(x, y=1, *, z, w=2): ...\ndef b(**k): ...\ndef c(): ...\n"
        "def d(x, /): ...\n@property\ndef e(x): ...\nclass f: ...\n",
    )
    tree = parse(locate("m.py:a", tmp_path))
    assert signature(tree, "a") == Signature(("x", "y", "z", "w"), ("x", "z"), open=False)
    assert signature(tree, "b") == Signature((), (), open=True)
    assert signature(tree, "c") == Signature((), (), open=False)
    assert [signature(tree, name) for name in "def"] == [None] * 3
    assert defined_names(tree) == frozenset("abcdef")
