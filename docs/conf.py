"""Configuration of the documents: `sphinx-build -W docs docs/_build/html` builds them without a network."""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

import ufm  # noqa: E402

project = "ufm"
release = version = ufm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinxcontrib.bibtex",
    "entries",
    "mathml",
    "command_line",
]
exclude_patterns = ["_build", "_ext", "_static"]
# A reference that leads nowhere is a warning, and warnings are errors.
nitpicky = True
# A name in backticks in a docstring is a link where the reference has it, and code otherwise.
default_role = "py:obj"
nitpick_ignore_regex = [
    (r"py:obj", r".*"),
    # Types of other projects, whose references are not at hand without a network, and our own that are not public.
    (r"py:class", r"(collections|contextlib|jaxtyping|matplotlib|numpy|pathlib|torch)\..*"),
    (r"py:class", r"Array|Tensor|ndarray|(.*\.)?(Curvature|Evaluation|Method|Restoration)"),
]

# The pages say which members an entry has; fields stand in the docstring's own section.
numpydoc_show_class_members = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The notebooks are run when the documents are built, and again only if one of them or the library has changed.
_LIBRARY = b"".join(path.read_bytes() for path in sorted((ROOT / "ufm").rglob("*.py*")) if path.suffix != ".pyc")
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs" / "_build" / "notebooks" / hashlib.sha256(_LIBRARY).hexdigest()[:16])
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
# What a notebook says on the error stream is a warning or a progress bar, and neither belongs on a page.
nb_output_stderr = "warn"
nb_merge_streams = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "label"

# Dashes only: quotes are those of code.
smartquotes_action = "D"
highlight_language = "none"
autodoc_member_order = "bysource"
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "ufm"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["ufm.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
