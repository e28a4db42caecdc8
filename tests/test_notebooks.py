"""The notebooks: each .ipynb is made of the .py beside it, has no noise, and runs from top to bottom."""

import json
import os
import re

import pytest

from jaxsim.compilation_cache import SWITCH
from jaxsim.dataset import cache_dir, dataset_path
from notebooks import execute
from tests.paths import ROOT

NAMES = [path.stem for path in execute.sources()]
LARGEST_BYTES = 300_000
# What a notebook's text says of its results, asked of its variables after the last cell.
CLAIMS = {
    "01_first_steps": """
assert 0.5 < like_rate["random"] < like_rate["popular"] < 1
assert len(films) == 8
""",
    "02_why_did_this_user_say_no": """
assert (int(before.response.like), int(after.response.like)) == (0, 1)
assert [vote.vote for vote in why.votes][:2] == [0, 0] and not why.like
assert why.most_similar_disliked.cosine > why.most_similar_liked.cosine
assert {flip.changes[0].kind for flip in why.flips} == set(kinds)
assert table_3(explained).shape == (6, 5) and table_4(explained).shape == (3, 4)
assert taste.item_part > abs(taste.taste_part)
""",
    "03_train_and_compare": """
assert set(learned) == {"ppo", "trpo", "a2c", "dqn"}
assert all(difference(agent, "random")[1] > 0 for agent in learned)
assert all(difference(agent, "oracle")[0] < 0 for agent in learned)
""",
    "04_your_own_data": """
assert len(asked) == dataset.num_items == 24
assert share["oracle"] == max(share.values())
""",
    "05_how_real_is_it": """
assert auc.value["taste"] > auc.value["item_rate"] > auc.value["paper"]
assert gain["low"] > 0 and rates["paper"] > people.mean() + 0.1
assert abs(rates["taste"] - people.mean()) < 0.03
assert control["item_rate"]["own history"] == control["item_rate"]["a stranger's history"]
assert judged["taste"]["tau"]["value"] > judged["paper"]["tau"]["value"] + 0.3
""",
    "06_your_own_user_and_agent": """
assert like_rate[-5:].mean() > like_rate[:5].mean() + 0.05
for earned in (likes, paper_likes):
    assert earned["oracle"] == max(earned.values())
    assert earned["our PPO"] > earned["random"]
assert library_rate[-1] > library_rate[0] + 0.05
assert scores["GenreFan"] > scores["like rate of the film alone"]
""",
    "07_slates_and_staying": """
assert (likes.loc["oracle"] > likes.loc["random"]).all()
assert np.diff(likes.loc["oracle"] - likes.loc["random"]) < 0
assert staying["popular"].steps.mean() > staying["oracle"].steps.mean()
assert staying["oracle_planning"].returns.mean() > staying["oracle"].returns.mean()
assert sessions.session.max() > 1 and table.retention_7.between(0.2, 0.8).all()
""",
}


def cells_of(name, kind):
    notebook = json.loads((execute.FOLDER / f"{name}.ipynb").read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source_of(cell):
    return "".join(cell["source"])


def test_every_notebook_has_claims_to_check():
    assert sorted(CLAIMS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_made_of_its_text(name):
    """If this fails, `make notebooks` writes the notebooks again."""
    pytest.importorskip("jupytext", reason="needs the packages of [notebooks]")
    made = execute.read(execute.FOLDER / f"{name}.py").cells
    kept = json.loads((execute.FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    assert [(c["cell_type"], c["id"], c["source"]) for c in made] == [
        (c["cell_type"], c["id"], source_of(c)) for c in kept
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_outputs_without_noise(name):
    path = execute.FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST_BYTES
    code = cells_of(name, "code")
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    for cell in code:
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("execution_count") is None
        assert output.get("name") != "stderr", output.get("text")
        text = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        assert not re.search(r"/(tmp|home|root|work|Users)/", text), text


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_a_badge_a_first_cell_and_an_exercise(name):
    text = [source_of(cell) for cell in cells_of(name, "markdown")]
    assert f"colab-badge.svg)]({execute.colab_address(name)})" in text[0]
    assert "## Exercise" in text[-1]
    setup = source_of(cells_of(name, "code")[0])
    first = source_of(cells_of(NAMES[0], "code")[0]).splitlines()
    assert set(setup.splitlines()[1:]) <= set(first), "the first cell is the same in all notebooks"


def test_the_badge_opens_the_notebook_where_the_repository_is_known(tmp_path, monkeypatch):
    assert execute.colab_address("01_x").startswith(execute.COLAB)
    project = '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/a/b/"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    expected = f"{execute.COLAB}github/a/b/blob/main/notebooks/01_x.ipynb"
    assert execute.colab_address("01_x") == expected


def test_an_unknown_notebook_is_one_line():
    pytest.importorskip("nbformat", reason="needs the packages of [notebooks]")
    with pytest.raises(SystemExit, match="08_x: no such notebook; there are 01_first_steps"):
        execute.main(["08_x"])


@pytest.fixture(scope="module")
def cache(request):
    """The cache folder with MovieLens 100K: the user's own, or one that is built for the tests."""
    if (dataset_path("ml-100k") / "manifest.json").is_file():
        return cache_dir()
    return request.getfixturevalue("movielens_cache")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_keeps_its_promises(name, cache, monkeypatch, tmp_path):
    for package in ("jupytext", "nbclient", "ipykernel", "openai"):
        pytest.importorskip(package, reason="needs the packages of [notebooks]")
    from nbformat.v4 import new_code_cell

    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(cache))
    if SWITCH not in os.environ:  # set it to "on" to be faster the second time
        monkeypatch.setenv(SWITCH, "off")  # nothing is written to the cache
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    notebook = execute.read(execute.FOLDER / f"{name}.py")
    notebook.cells.append(new_code_cell(CLAIMS[name]))
    execute.execute(notebook)  # raises if a cell fails
