"""Execute the notebooks: `python notebooks/execute.py [NAME ...]`, or `make notebooks` for all of them.

A notebook is written and reviewed as `NN_name.py`, in the percent format of jupytext. This program executes it
and writes `NN_name.ipynb` beside it, with the outputs, for readers and for Colab. Edit the .py file only.

Needs the packages of `pip install -e ".[notebooks]"`.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
SECONDS = 600  # that a cell may take; the first one may build a dataset
COLAB = "https://colab.research.google.com/"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def sources() -> list[Path]:
    """The notebooks as text, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def colab_address(name: str) -> str:
    """What the badge of a notebook opens: the notebook itself if pyproject.toml says where the repository is.

    Otherwise it opens Colab, where one uploads the notebook.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    repository = project.get("urls", {}).get("Repository", "").rstrip("/")
    if not repository.startswith("https://github.com/"):
        return COLAB
    path = repository.removeprefix("https://github.com/")
    return f"{COLAB}github/{path}/blob/main/notebooks/{name}.ipynb"


def read(source: Path) -> Any:
    """A notebook without outputs, from its text; its cells have ids that do not change from run to run."""
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = dict(_KERNEL)
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata.clear()
        cell.source = cell.source.replace(f"({COLAB})", f"({colab_address(source.stem)})")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: Any) -> Any:
    """The notebook with its outputs, executed in a kernel of this environment; a cell that fails raises."""
    from nbclient import NotebookClient

    options = {"timeout": SECONDS, "kernel_name": "python3", "record_timing": False}
    resources = {"metadata": {"path": str(FOLDER)}}
    return NotebookClient(notebook, resources=resources, **options).execute()


def without_noise(notebook: Any) -> Any:
    """The notebook without counts of executions, which change while nothing that a reader sees does."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = None
    notebook.metadata["kernelspec"] = dict(_KERNEL)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(names: list[str]) -> None:
    """Execute the named notebooks, by default all, and write each one when it is done."""
    import nbformat

    unknown = set(names) - {path.stem for path in sources()}
    if unknown:
        known = ", ".join(path.stem for path in sources())
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such notebook; there are {known}")
    for source in sources():
        if names and source.stem not in names:
            continue
        print(f"executing {source.name} ...", flush=True)
        notebook = without_noise(execute(read(source)))
        nbformat.validate(notebook)
        nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
