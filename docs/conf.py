"""Configuration of Sphinx; see https://www.sphinx-doc.org."""

from stnbench import __version__

project = "stnbench"
author = "The stnbench authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest", "sphinx_copybutton"]
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "params_style"), ("Convention", "notes_style")]

html_theme = "furo"
html_title = "stnbench"
html_static_path: list[str] = []
