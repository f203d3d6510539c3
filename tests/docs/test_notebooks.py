"""The notebooks run, and their headline numbers are right; in the repository they have no outputs."""

import ast
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import wrightomega

nbformat = pytest.importorskip("nbformat", reason="the notebooks are read with the extra `docs`")

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Pictures of each.
FIGURES = {"theory": 4, "my_network": 3, "paper_figure": 1}


def cells(name: str, kind: str) -> dict[str, str]:
    """Return the sources of a notebook's cells of a kind, by identifier."""
    content = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return {cell["id"]: "".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind}


def run(name: str, *, skip: str = "", **changed: Any) -> dict[str, Any]:
    """Run a notebook's code but a cell, without a kernel, with other values for some names, and return its names."""
    namespace: dict[str, Any] = {"__name__": "notebook"}
    figures = 0
    for cell, source in cells(name, "code").items():
        if cell == skip:
            continue
        tree = ast.parse(re.sub(r"^%.*", "", source, flags=re.MULTILINE))
        shown = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        for node in tree.body:
            exec(compile(ast.Module([node], []), f"{name}, cell {cell}", "exec"), namespace)
            namespace |= {key: value for key, value in changed.items() if key in namespace}
        value = shown and eval(compile(shown, f"{name}, cell {cell}", "eval"), namespace)
        if isinstance(value, Figure):
            value.savefig(io.BytesIO(), format="png", dpi=40)
            figures += 1
    assert figures == FIGURES[name]
    assert all(namespace[key] == value for key, value in changed.items())
    return namespace


def probabilities(labels: np.ndarray, beta: float) -> np.ndarray:
    """Return the optimal probabilities (N, K) by bisection on tau and SciPy's Wright omega function."""
    low, high = np.full((2, len(labels), 1), [[[-2 * beta]], [[2 * beta]]])
    for _ in range(100):
        tau = (low + high) / 2
        large = wrightomega(beta * labels + tau).sum(1, keepdims=True) > beta
        low, high = np.where(large, low, tau), np.where(large, tau, high)
    return wrightomega(beta * labels + tau) / beta


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_and_has_no_outputs(name: str):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    content = json.loads(text)
    nbformat.validate(content)
    assert text == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    assert content["metadata"] == METADATA
    for cell in content["cells"]:
        assert cell["metadata"] == {}
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
    assert all(len(source.splitlines()) <= 40 for source in cells(name, "code").values())


def test_notebooks_are_on_their_page_and_in_the_readme():
    page, readme = (FOLDER / "index.md").read_text("utf-8"), (FOLDER.parents[1] / "README.md").read_text("utf-8")
    assert set(FIGURES) == set(NOTEBOOKS) == set(re.findall(r"\{doc\}`(\w+)`", page))
    assert set(NOTEBOOKS) == set(re.findall(r"docs/notebooks/(\w+)\.ipynb", readme))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_exist(name: str):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", "\n".join(cells(name, "markdown").values()))
    assert targets
    for target in targets:
        assert (FOLDER / target).exists(), target


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("unchecked", "elsewhere")
def test_theory():
    """Takes 4 seconds."""
    names = run("theory")
    label = names["label"].numpy()
    expected = probabilities(label, names["beta"])
    assert names["beta"] == pytest.approx(1406.25)
    assert expected[0, 0] == pytest.approx(0.797, abs=5e-4)  # as the text says
    np.testing.assert_allclose(names["best"].probabilities, expected, rtol=1e-11)
    np.testing.assert_allclose(names["best"].logits, names["beta"] * (label - expected), rtol=1e-8)

    # The scalar equation, solved by another program; then the objective at its root.
    labels, weights, decay = names["targets"].labels.numpy(), names["targets"].weights.numpy(), names["decay"]

    def excess(beta: float) -> float:
        return weights @ ((labels - probabilities(labels, beta)) ** 2).sum(1) - 4 * decay**2

    beta = brentq(excess, 500, 5000, xtol=1e-9)
    assert names["optimum"].beta == pytest.approx(beta, rel=1e-9)
    p = probabilities(labels, beta)
    loss = -(labels * np.log(p)).sum(1) + beta * ((labels - p) ** 2).sum(1) / 2
    objective = weights @ loss + decay * 4 * decay * beta / 2
    for found in ("optimum", "solution"):
        assert names[found].objective == pytest.approx(objective, abs=1e-11)
    assert objective - 1e-9 < names["bound"] < objective + 1e-13
    assert names["bound"] == pytest.approx(names["solution"].certificate.lower_bound, abs=1e-13)

    lam = np.array([0.5, 0.7, 0.9])
    p = probabilities(np.stack([lam, 1 - lam, 0 * lam, 0 * lam, 0 * lam], 1), beta)
    np.testing.assert_allclose(names["shape"].width, np.log(p[:, 0] / p[:, 1]), atol=1e-8)
    np.testing.assert_allclose(names["shape"].depth, np.log(p[:, 0] * p[:, 1] / p[:, 2] ** 2) / 2, rtol=1e-8)
    np.testing.assert_allclose(names["shape"].width, names["shape"].width_asymptotic, atol=0.02)
    assert (names["history"].gap - names["above"]).min() > -1e-12
    logits = names["solution"].logits.numpy()
    np.testing.assert_allclose(logits, beta * (labels - probabilities(labels, beta)), atol=1e-6)


def check_twins(names: dict[str, Any], lead: float) -> None:
    """With mixup the closed form is ahead of the straight line by `lead`, without it is behind."""
    ahead, behind = (names[which] for which in ("comparison", "without_mixup"))
    assert ahead.score("fit-free").r2 > ahead.score("straight line").r2 + lead
    assert behind.score("straight line").r2 > behind.score("closed form").r2 + 0.05
    assert ahead.solver_converged and ahead.solver_error < 1e-8


@pytest.mark.usefixtures("unchecked", "elsewhere")
def test_my_network_in_few_epochs():
    """Takes 6 seconds."""
    check_twins(run("my_network", skip="report", EPOCHS=3, SAMPLES=2000), lead=0.03)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "elsewhere")
def test_my_network():
    """Takes 15 seconds."""
    names = run("my_network")
    check_twins(names, lead=0.08)
    found = names["comparison"]
    assert found.score("fit-free").r2 > 0.85
    assert 0.6 < found.beta / found.beta_fit_free < 1.1
    assert found.departure.excess < 3 * found.departure.excess_theory
    assert all(abs(ratio - 1) < 0.15 for ratio in found.departure.width_ratio[:4])
    assert found.departure.width_ratio[4] > 1.1
    assert max(found.collapse.nc1, found.collapse.nc2, found.collapse.nc3) < 0.2
    assert {2, 14} <= {row["epoch"] for row in names["history"] if "nc1" in row} <= {2, 5, 8, 11, 14}
    page = Path("report.html").read_text(encoding="utf-8")
    assert "with mixup" in page and "without" in page


@pytest.mark.usefixtures("unchecked", "elsewhere")
def test_paper_figure():
    """Takes 7 seconds."""
    names = run("paper_figure")
    activations, found = names["activations"], names["comparison"]
    labels, logits = activations.labels[:1000].double().numpy(), activations.logits[:1000].double().numpy()
    logits = logits - logits.mean(1, keepdims=True)
    expected = names["beta"] * (labels - probabilities(labels, names["beta"]))
    spread = ((logits - logits.mean(0)) ** 2).sum()
    assert 1 - ((logits - expected) ** 2).sum() / spread > 0.95
    np.testing.assert_allclose(names["theory"].logits[:1000], expected, atol=1e-6)
    assert names["beta"] == pytest.approx(found.multiplier**2 * 10 / 9 / names["feature_decay"])

    assert found.score("fit-free").r2 > 0.95 > found.score("straight line").r2 + 0.08
    assert found.departure.excess < 2 * found.departure.excess_theory
    width, depth = (
        getattr(names["network"], of)[5:] / getattr(names["predicted"], of)[5:] - 1 for of in ("width", "depth")
    )
    assert np.all(np.abs(width[:4]) < 0.1) and np.all(np.abs(depth[:4]) < 0.03)
    assert 0.03 < width[4] < 0.25 and -0.2 < depth[4] < -0.03
    assert found.collapse.nc1 < 0.03 and found.collapse.nc3 < 0.1 and found.in_plane > 0.99
    assert names["ratio"] > 1.12
    unseen = names["mixed_unseen"]
    assert max(unseen.score(name).r2 for name in ("fit-free", "straight line")) < 0.3

    # The solver ends where the network's classifier and beta say, which it was not told.
    assert names["solution"].certificate.relative_gap < 1e-10
    assert names["size"].relative_error < 1e-5
    assert names["size"].multiplier == pytest.approx(found.multiplier, rel=1e-2)
    assert torch.allclose(names["same"].logits, names["solution"].logits, atol=1e-5)
