"""Every derivation holds, agrees with ufm, names what exists, and is rendered as it stands."""

import pkgutil
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import sympy as sp

from derivations import NAMES
from derivations.claim import Check, Claim, Derivation, DerivationError, Proof, Step, latex, load
from derivations.pages import theory_pages
from derivations.plain import plain

ROOT = Path(__file__).parents[2]
# One worker, so that each claim is proved once.
pytestmark = pytest.mark.xdist_group("derivations")


@cache
def proved(name: str) -> tuple[Claim, Proof]:
    claim = load(name)
    return claim, claim.prove()


@pytest.mark.parametrize("name", NAMES)
def test_claim_holds(name: str) -> None:
    claim, proof = proved(name)
    assert sum(bool(step.proof) for step in proof.steps) >= 3
    assert proof.checks
    assert all(check.error <= check.tolerance for check in proof.checks)
    assert claim.title
    assert claim.statement
    assert claim.assumptions


@pytest.mark.parametrize("name", NAMES)
def test_claim_names_what_exists(name: str) -> None:
    claim = load(name)
    assert claim.implemented_by
    for entry in claim.implemented_by:
        assert entry.startswith("ufm.")
        assert callable(pkgutil.resolve_name(entry))
    assert claim.tests
    for entry in claim.tests:
        path, _, function = entry.partition("::")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")


def test_every_script_is_listed() -> None:
    helpers = {"__init__", "claim", "document", "pages", "plain", "reference", "render", "symbols"}
    assert {path.stem for path in (ROOT / "derivations").glob("*.py")} - helpers == set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


def test_script_prints_its_steps() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "derivations.same_class"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "sympy: symbolically" in result.stdout
    assert "ufm against the derivation" in result.stdout
    assert "$" not in result.stdout
    assert "\\" not in result.stdout


def test_plain_text_keeps_no_markup() -> None:
    for name in NAMES:
        claim = load(name)
        for text in (claim.title, claim.statement, *claim.assumptions):
            assert not re.search(r"[$\\]", plain(text))


x, y = sp.symbols("x y", positive=True)


def test_false_identity_is_refused() -> None:
    d = Derivation()
    d.identity("true", (x + y) ** 2, x**2 + 2 * x * y + y**2)
    with pytest.raises(DerivationError, match="false"):
        d.identity("false", (x + y) ** 2, x**2 + y**2)
    with pytest.raises(DerivationError, match="second of two"):
        d.identities("second of two", [(x, x), (sp.log(x * y), sp.log(x))], shown="")
    with pytest.raises(DerivationError, match="matrix"):
        d.identity("matrix", sp.eye(2), sp.diag(1, x))
    with pytest.raises(DerivationError, match="none"):
        d.identities("none", [], shown="")
    assert [step.text for step in d.done()] == ["true"]


@pytest.mark.parametrize("truth", [False, sp.false, sp.Eq(x, y), None])
def test_fact_that_is_not_known_to_be_true_is_refused(truth: object) -> None:
    with pytest.raises(DerivationError, match="claimed"):
        Derivation().fact("claimed", truth)


@pytest.mark.parametrize("error", [2e-3, float("nan"), float("inf")])
def test_check_above_its_tolerance_fails_the_claim(error: float) -> None:
    def claim(checks: tuple[Check, ...], steps: tuple[Step, ...]) -> Claim:
        return Claim("title", "statement", (), (), (), lambda: steps, lambda: checks)

    verified = (Step("step", None, "symbolically"),)
    assert claim((Check("number", 1e-3, 1e-3),), verified).prove().checks[0].passed
    with pytest.raises(DerivationError, match="number"):
        claim((Check("fine", 0.0, 1e-3), Check("number", error, 1e-3)), verified).prove()
    with pytest.raises(DerivationError, match="nothing was verified"):
        claim((), verified).prove()
    with pytest.raises(DerivationError, match="nothing was verified"):
        claim((Check("fine", 0.0, 1e-3),), (Step("only words"),)).prove()


# `.ci/run` renders the pages and the document anew, and fails if a page changes.
@pytest.mark.slow
def test_committed_pages_are_up_to_date_and_all_claims_make_one_document() -> None:
    pytest.importorskip("pypandoc")
    pytest.importorskip("typst")
    from derivations import render

    claims = {name: proved(name) for name in NAMES}
    assert render.stale(claims) == []
    source, digest = render.typst_source(claims)
    pdf = render.render_pdf(source)
    assert pdf.startswith(b"%PDF")
    assert f"sha256-{digest}".encode() in pdf
    assert pdf == render.render_pdf(source)
    html = render.render_html(claims)
    assert all(claim.title.split(",")[0] in html for claim, _ in claims.values())
    assert "<math" in html


@pytest.mark.slow
def test_stale_pages_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypandoc")
    from derivations import render

    claims = {name: proved(name) for name in NAMES}
    monkeypatch.setattr(render, "PAGES", shutil.copytree(render.PAGES, tmp_path / "theory"))
    assert render.stale(claims) == []
    first = next(iter(claims))
    claim, proof = claims[first]
    changed = claims | {first: (claim, Proof((*proof.steps, Step("one more step")), proof.checks))}
    assert render.stale(changed) == [f"theory/{first}.md is stale"]
    (render.PAGES / "index.md").unlink()
    (render.PAGES / "of_old.md").touch()
    assert render.stale(claims) == ["theory/index.md is stale", "theory/of_old.md belongs to no claim"]


@pytest.mark.slow
def test_pages_are_markdown_that_the_documents_read() -> None:
    pages = theory_pages({name: proved(name) for name in NAMES})
    assert pages.keys() == {"index.md"} | {f"{name}.md" for name in NAMES}
    for name, page in pages.items():
        displayed = re.findall(r"^ *\$\$(.*)$", page, flags=re.MULTILINE)
        # A displayed formula stands between two lines of dollar signs; elsewhere there are single ones only.
        assert len(displayed) % 2 == 0, name
        assert not any(displayed), name
        assert page.count("$$") == len(displayed), name
        assert "{=" not in page, name
    for name in NAMES:
        claim, proof = proved(name)
        page = pages[f"{name}.md"]
        assert page.count("✓") == sum(bool(step.proof) for step in proof.steps)
        assert all(
            latex(step.formula) in page.replace("\n     ", "\n") for step in proof.steps if step.formula is not None
        )
        assert f"[{claim.title}]({name}.md)" in pages["index.md"]
