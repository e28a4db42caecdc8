"""How the documentation site is built: `make docs`."""

from importlib.metadata import version as version_of

project = "jaxsim"
author = "The jaxsim authors"
release = version = version_of("jaxsim-recsys")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
exclude_patterns = ["site"]

html_theme = "furo"
html_title = f"jaxsim {release}"

autodoc_mock_imports = ["stable_baselines3"]  # an extra, which the pages can do without
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"show-inheritance": False}
napoleon_google_docstring = True
napoleon_use_ivar = True
copybutton_prompt_text = r"\$ "
