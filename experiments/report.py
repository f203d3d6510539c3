"""The demo's report: one self-contained HTML page, pictures inside."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from experiments.claims import Claim
from ufm.storage import atomic_path, to_json


def write_report(out: Path, results: dict[str, Any], claims: list[Claim], pictures: dict[str, Path]) -> Path:
    """Write `report.html` into `out` and return its path."""
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    )
    counts = {
        f"{name}_{what}": sum(claim.exact == exact and (what == "total" or claim.passed) for claim in claims)
        for name, exact in (("exact", True), ("network", False))
        for what in ("passed", "total")
    }
    images = {
        name: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()
    }
    configuration = to_json({"config": results["config"], "versions": results["versions"]})
    path = out / "report.html"
    with atomic_path(path) as temporary:
        page = template.render(r=results, claims=claims, images=images, configuration=configuration, **counts)
        temporary.write_text(page, encoding="utf-8")
    return path
