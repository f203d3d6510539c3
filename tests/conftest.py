"""Shared set-up: shapes are checked at run time, torch is single-threaded, hypothesis is reproducible."""

import os

import hypothesis
import jaxtyping
import pytest
import torch

import tests.helpers.typecheck  # noqa: F401  (the hook looks its checker up by attribute)

# Every annotated function of the library is checked against its shapes while the tests run.
jaxtyping.install_import_hook("ufm", "tests.helpers.typecheck.check")

# One thread per worker: two pytest workers share two cores.
torch.set_num_threads(1)

# `make test` takes a few examples of each property, `make test-all` many.
_EXAMPLES = 100 if os.environ.get("UFM_THOROUGH") else 25
hypothesis.settings.register_profile("dev", max_examples=_EXAMPLES, deadline=None, report_multiple_bugs=False)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("dev"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch):
    """Switch the shape checks off, so that the library's own argument checks are what is tested."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
