"""The documents' code is run and its output compared; their links, commands and citations checked."""

import contextlib
import importlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import ufm.commands.main
import ufm.losses
from ufm.networks import measures
from ufm.runs import network_claims

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = "../README"
PAGES = (
    README,
    "start",
    "tutorial",
    *(f"howto/{path.stem}" for path in sorted((DOCS / "howto").glob("*.md"))),
    "status",
)
RUNNABLE = ("python", "bash")
FENCE = re.compile(r"^```(\w+|\{[\w-]+\})[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: language, code, first line in the page, the output below it, and whether that is measured."""

    language: str
    code: str
    line: int
    output: str | None
    measured: bool


def blocks_of(page: str) -> list[Block]:
    """Return the blocks that run; a `text` block with nothing but blank lines before it is the output of the last.

    Output that hangs on the training of a network is fenced as `text measured`, of which readers see nothing.
    """
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    blocks = []
    for i, match in enumerate(found):
        if match[1] not in RUNNABLE:
            continue
        after = found[i + 1] if i + 1 < len(found) else None
        shown = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        line = text[: match.start(2)].count("\n")
        output = after[2] if after is not None and shown else None
        measured = after is not None and shown and after[0].splitlines()[0].split() == ["```text", "measured"]
        blocks.append(Block(match[1], match[2], line, output, measured))
    return blocks


def same_output(printed: str, shown: str, *, measured: bool = False) -> bool:
    """Return whether words agree, and numbers within 1e-3 of each other.

    measured: within a fifth or 0.03 instead, as the training of a network does not end the same everywhere.
    """
    relative, absolute = (0.2, 0.03) if measured else (1e-3, 0.0)

    def parts(text: str) -> tuple[list[str], list[float]]:
        # Brackets and blanks are how arrays of other digits come to be laid out otherwise.
        return re.sub(r"[\s\[\]]+", " ", NUMBER.sub("#", text)).split(), [float(x) for x in NUMBER.findall(text)]

    (words, numbers), (shown_words, shown_numbers) = parts(printed), parts(shown)
    return words == shown_words and all(
        math.isclose(x, y, rel_tol=relative, abs_tol=absolute) for x, y in zip(numbers, shown_numbers, strict=True)
    )


def run_command(line: str) -> int:
    """Run one line of a shell block: in this process, but for a solve by several; `make` says its commands only."""
    words = shlex.split(line, comments=True)
    words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    if words[0] == "make":
        # Its targets are what runs these tests, or take minutes; that they exist is what can be seen from here.
        done = subprocess.run(["make", "-C", str(ROOT), "-n", *words[1:]], capture_output=True, check=False)
        return done.returncode
    if words[0] == "ufm":
        return ufm.commands.main.main(words[1:])
    if words[0] == "torchrun" and "experiments.train" in words:
        # Training by several processes has tests of its own; here one process tries the options.
        words = ["python", *words[words.index("-m") :]]
    if words[:2] == ["python", "-m"]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[2:])
            module = importlib.import_module(words[2])
            # A package is run by its __main__.
            program = importlib.import_module(f"{words[2]}.__main__") if hasattr(module, "__path__") else module
            return program.main()
    if words[0] == "torchrun":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
        done = subprocess.run(
            [*command, *words[1:]], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode
    raise ValueError(f"line: got {line!r}, expected ufm, python -m, torchrun or make")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_blocks_run_and_print_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The README is read in a checkout.
    for folder in ("experiments", "figures") if page == README else ():
        (tmp_path / folder).symlink_to(ROOT / folder)
    # A page may add a loss, a measure or a claim, which are nobody else's.
    monkeypatch.setattr(ufm.losses, "LOSSES", dict(ufm.losses.LOSSES))
    monkeypatch.setattr(measures, "MEASURES", {})
    monkeypatch.setattr(network_claims, "_REGISTERED", [])
    namespace = {"__name__": "documents"}
    for block in blocks_of(page):
        printed = io.StringIO()
        where = f"{page}.md, line {block.line}"
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                exec(compile("\n" * block.line + block.code, f"{page}.md", "exec"), namespace)
            else:
                for line in filter(None, block.code.splitlines()):
                    assert run_command(line) == 0, f"{where}: {line}"
        if block.output is not None:
            same = same_output(printed.getvalue(), block.output, measured=block.measured)
            assert same, f"{where} printed\n{printed.getvalue()}"


def test_output_is_compared_in_words_and_numbers():
    for measured in (False, True):
        assert same_output("beta 90.1 [-0. 2. ]\n", "beta 90.11 [0. 2.]", measured=measured)
        assert not same_output("beta 90.1", "gamma 90.1", measured=measured)
        assert not same_output("beta 90.1", "beta 60.1", measured=measured)
        assert not same_output("beta 1 2", "beta 1", measured=measured)
    assert same_output("beta 90.1, ECE 0.01", "beta 88.0, ECE 0.02", measured=True)
    assert not same_output("beta 90.1", "beta 90.3")
    assert not same_output("0.", "0.001")
    with pytest.raises(ValueError, match="expected ufm"):
        run_command("rm -r .")


def test_only_what_a_training_leads_to_is_compared_loosely():
    blocks = {page: blocks_of(page) for page in PAGES}
    assert {page for page in PAGES if any(block.measured for block in blocks[page])} == {"tutorial"}
    trained = next(i for i, block in enumerate(blocks["tutorial"]) if "def train_network" in block.code)
    assert not any(block.measured for block in blocks["tutorial"][:trained])
    (exact,) = (block for block in blocks["tutorial"] if "F* 0.50295" in (block.output or ""))
    shown = exact.output or ""
    assert not same_output(shown, shown.replace("0.50295", "0.42"), measured=exact.measured)


def help_of(module: str, *command: str) -> str:
    """Return what a program, or a command of it, says of itself."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        run_command(shlex.join(["python", "-m", module, *command, "--help"]))
    assert ended.value.code == 0, module
    return said.getvalue()


def test_programs_and_their_options_exist_also_where_no_test_runs_them():
    programs = (path for path in (ROOT / "experiments").rglob("*.py") if '__name__ == "__main__"' in path.read_text())
    named = re.findall(r"^\| `python -m (experiments[\w.]+)`", (DOCS / "api/experiments.md").read_text(), re.MULTILINE)
    modules = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in programs)
    assert sorted(named) == sorted(module.removesuffix(".__main__") for module in modules)
    known = {(module, ""): help_of(module) for module in (*named, "derivations.render")}
    for page in (*PAGES, "api/experiments"):
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8").replace("\\\n", " ")
        offered = ""
        for module, rest in re.findall(r"-m ((?:experiments|derivations)\.[\w.]+)([^`#\n]*)", text):
            command = (re.findall(r"^ ([a-z]+)(?= |$)", rest) or [""])[0]
            if (module, command) not in known:
                known[module, command] = help_of(module, command)
            for option in re.findall(r"--[a-z][\w.-]*", rest):
                assert re.search(rf"{option}(?![\w.-])", known[module, command]), f"{page}: {module} {option}"
            offered += known[module, command]
        # What the prose names is an option of one of the programs on the page.
        for option in re.findall(r"`(--[a-z][\w.-]*)[^`]*`", text) if offered and page != README else ():
            assert re.search(rf"{option}(?![\w.-])", offered), f"{page}: {option}"


def test_what_the_pages_name_exists():
    for page in (*PAGES, "literature"):
        path = DOCS / f"{page}.md"
        prose = FENCE.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", prose):
            base = DOCS if target.startswith("/") else path.parent
            assert (base / f"{target.lstrip('/')}.md").exists(), f"{page}: {target}"
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose):
            assert (path.parent / target).exists(), f"{page}: {target}"
        for name in re.findall(r"`((?:tests|experiments|derivations)/[\w./-]+)`", prose):
            assert (ROOT / name).exists(), f"{page}: {name}"
        for name in re.findall(r"\{py:\w+\}`ufm\.(\w+)`", prose):
            assert name in ufm.__all__, f"{page}: {name}"


def test_citations_and_bibliography_agree():
    keys = re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(set(keys)) == len(keys)
    cited = {page: citations(page) for page in (*PAGES, "literature")}
    for page, found in cited.items():
        assert found <= set(keys), f"{page}: {found - set(keys)}"
    assert cited["literature"] == set(keys)


def citations(page: str) -> set[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return {key for group in re.findall(r"\{cite(?::t)?\}`([^`]+)`", text) for key in group.split(",")}
