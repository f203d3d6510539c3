"""No source runs code that comes from data, and the page of promises names what there is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ufm", "experiments", "figures", "derivations", "docs")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Their files run code when they are read.
_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml"}
_BUILTINS = {"eval", "exec", "compile", "__import__"}
_CALLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "joblib.load", "joblib.dump"}
# Calls that need an argument to be safe.
_SAFE = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
_NEVER = {"shell": False, "allow_pickle": False, "weights_only": True}


def faults(source: str) -> Iterator[str]:
    """Yield what runs code, or could, from data in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {name}" for name in names if name.split(".")[0] in _MODULES)
            if isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{each.name}" for each in node.names]
                yield from (name for name in whole if name in _CALLS | _SAFE.keys())
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in _BUILTINS | _CALLS or name.split(".")[0] in _MODULES:
                yield f"{name}()"
            if name in _SAFE:
                word, value = _SAFE[name]
                if given.get(word) != str(value):
                    yield f"{name}() without {word}={value}"
            yield from (
                f"{word}={given[word]}" for word, safe in _NEVER.items() if given.get(word, str(safe)) != str(safe)
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_source_runs_code_from_data(folder: str):
    found = {
        f"{path.relative_to(ROOT)}: {fault}"
        for path in SOURCES
        if path.is_relative_to(ROOT / folder)
        for fault in faults(path.read_text(encoding="utf-8"))
    }
    assert not found
    assert sum(path.is_relative_to(ROOT / folder) for path in SOURCES) > 2


def test_documents_show_no_unsafe_loading():
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert "pickle.load" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal",
        "from cloudpickle import loads",
        "eval('1')",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x, allow_pickle=True)",
        "subprocess.run(words, shell=True)",
        "subprocess.run(words, shell=wanted)",
        "os.system('ls')",
        "def f():\n    import shelve",
    ],
)
def test_each_of_them_would_be_found(source: str):
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "torch.compile(network)",
        "re.compile('x')",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "subprocess.run(words, shell=False)",
        "json.loads(text)",
    ],
)
def test_what_is_harmless_is_not(source: str):
    assert not list(faults(source))


def test_the_promises_are_written_down():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for word in ("pickle", "weights_only", "SIGTERM", "mishandled", "report"):
        assert word in text
    assert len(text.splitlines()) < 60
