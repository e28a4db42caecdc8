"""README and docs/ name real commands, files and results; tests/test_code_blocks.py runs their code."""

import contextlib
import functools
import io
import json
import re
import runpy
import shlex
from collections.abc import Iterator

import pytest

from benchmarks import quotes
from jaxsim import InputError
from tests.paths import ROOT, needs_results

pytestmark = needs_results
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("prep", "agents", "benchmarks")


# ---- commands ----------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of each `python -m PROGRAM ...` in a line of code or between backticks."""
    pattern = rf"python -m (?:{'|'.join(PROGRAMS)})(?: [^`#\n]+)?"
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")  # a command may go on in the next line
        for command in re.findall(pattern, text):
            yield page.name, command.strip().replace("NAME", "dqn" if "agents" in command else "x")


@functools.cache
def help_of(program: str, words: tuple[str, ...]) -> str:
    """What `python -m PROGRAM WORDS --help` prints, run in this process: loading the libraries takes seconds."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr("sys.argv", [program, *words, "--help"])
        patch.setenv("COLUMNS", "250")
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / program / "__main__.py"), run_name="__main__")
    assert end.value.code == 0, (program, words)
    return output.getvalue()


def split_command(command: str) -> tuple[str, tuple[str, ...], list[str]]:
    """The program, the words that name the command, and the options."""
    _, _, program, *words = shlex.split(command)
    options = [word for word in words if re.fullmatch(r"--?[a-z][\w.-]*", word)]
    depth = 2 if words[0] in ("train", "replies") else 1
    return program, tuple(words[:depth]), options


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_commands_exist_and_have_the_options_that_a_page_gives_them(page, command):
    program, words, options = split_command(command)
    text = help_of(program, tuple(word for word in words if word not in ("--help", "-h")))
    assert f"usage: python -m {' '.join([program, *words])}".removesuffix(" --help") in text
    for option in options:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w.-])", text) or option in words, (
            option
        )


def test_a_command_is_split_into_its_parts():
    command = "python -m agents train dqn --seeds 5 --out runs/dqn"
    assert split_command(command) == ("agents", ("train", "dqn"), ["--seeds", "--out"])
    command = "python -m prep build books.csv --annotate none"
    assert split_command(command) == ("prep", ("build",), ["--annotate"])


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", text):
        assert (page.parent / name).exists(), name
    code = r"`((?:jaxsim|agents|prep|benchmarks|tests|docs)/[\w./*-]*(?:/|\.\w+))`"
    for name in re.findall(code, text):
        if "NAME" not in name:
            assert list(ROOT.glob(name.rstrip("/"))), name


def test_the_citation_file_names_the_authors_that_the_readme_names():
    """In the same order; YAML is read line by line, for no dependency parses it."""
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    names = re.findall(r"given-names: (.+)\n +family-names: (.+)", citation)
    assert ", ".join(" ".join(name) for name in names[:9]) in (ROOT / "README.md").read_text(
        "utf-8"
    )


# ---- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", quotes.pages(), ids=lambda page: page.name)
def test_a_page_quotes_the_kept_results(page):
    """After recording a result again, `python -m benchmarks quotes` rewrites the pages."""
    text = page.read_text("utf-8")
    assert quotes.refreshed(text) == text
    assert not re.search(r"^<!-- number", text, re.MULTILINE), "Markdown takes this line for HTML"
    assert text.count("<!-- number ") == text.count("<!-- /number -->")
    assert text.count("<!-- block ") == text.count("<!-- /block -->")


def test_every_measurement_is_quoted_and_speed_in_the_readme():
    everything = "".join(page.read_text("utf-8") for page in quotes.pages())
    for name in quotes.BLOCKS:
        assert re.search(rf"<!-- block \S+ {name} -->", everything), name
    text = quotes.ROOT.joinpath("README.md").read_text("utf-8")
    assert "<!-- number throughput-ml-100k.json best.steps_per_second" in text


def test_the_words_on_table_2_hold_of_the_kept_result():
    """If this fails after recording Table 2 again, reword docs/results.md and the README."""
    result = json.loads((quotes.RESULTS / "table2-ml-100k.json").read_text("utf-8"))
    rows = {(row["policy"], row["users"]): row for row in result["rows"]}
    for users in ("train", "held_out"):
        for agent in ("ppo", "trpo", "a2c", "dqn"):
            assert rows[agent, users]["paired_low"] > 0, "earns more than like_rate"
            assert rows[agent, users]["paired_popular_low"] > 0, "earns more than popular"
    trpo, static = (rows[name, "train"] for name in ("trpo", "static_best"))
    assert trpo["a_rwd_low"] > static["a_rwd"], "TRPO earns slightly more than static_best"
    trpo, static = (rows[name, "held_out"] for name in ("trpo", "static_best"))
    assert trpo["a_rwd_low"] < static["a_rwd"] < trpo["a_rwd_high"], "for held-out users: equal"


def test_the_words_on_agents_that_adapt_hold_of_the_kept_results():
    """If this fails after recording them again, reword docs/results.md and docs/training.md."""
    for name, above in (("calibrated", True), ("calibrated-default", False)):
        text = (quotes.RESULTS / f"table2-ml-100k-{name}.json").read_text("utf-8")
        rows = {(row["policy"], row["users"]): row for row in json.loads(text)["rows"]}
        for agent in ("ppo", "trpo", "a2c", "dqn"):
            for users in ("train", "held_out") if above else ("train",):
                row = rows[agent, users]
                end = row["paired_static_best_low"] if above else -row["paired_static_best_high"]
                assert end > 0, (agent, users)
                assert not above or row["users_static_best_low"] > 0, (agent, users)
        if above:
            shares = [
                rows["ppo", users]["share_past_static_best"] for users in ("train", "held_out")
            ]
            assert min(shares) > 0.5, "more than half of the way"


def test_the_words_on_planning_hold_of_the_kept_results():
    """If this fails after recording them again, reword docs/results.md and docs/departure.md."""
    reward = {}
    for name in ("planning", "personal"):
        path = quotes.RESULTS / f"table2-ml-100k-departure-{name}.json"
        rows = json.loads(path.read_text("utf-8"))["rows"]
        reward[name] = {(row["policy"], row["users"]): row for row in rows}
    for agent in ("ppo", "a2c"):
        for users in ("train", "held_out"):
            planning, personal = (reward[name][agent, users] for name in ("planning", "personal"))
            assert planning["paired_oracle_low"] > 0, "more than the one-step oracle"
            assert planning["a_rwd"] > personal["a_rwd"]
        planning, personal = (reward[name][agent, "train"] for name in ("planning", "personal"))
        assert planning["a_rwd_low"] > personal["a_rwd_high"], "the discount matters"


def test_the_words_on_satiation_hold_of_the_kept_result():
    """If this fails after recording it again, reword docs/satiation.md."""
    result = json.loads((quotes.RESULTS / "satiation-ml-100k.json").read_text("utf-8"))
    assert not result["fit"]["shows"]
    kept = [row for row in result["fit"]["tables"]["raw"] if row["kept"]]
    assert [row["term"] for row in kept] == ["keyword_similarity"]
    assert kept[0]["coefficient"] > 0
    earned = {(row["satiation"], row["policy"]): row["a_rwd"] for row in result["sessions"]}
    lost = {name: 1 - earned[2, name] / earned[0, name] for _, name in earned}
    assert lost["random"] == pytest.approx(0.46, abs=0.03)
    assert lost["random"] > lost["static_best"] > 2 * lost["oracle"] > 0


def test_the_words_on_fidelity_hold_of_the_kept_result():
    """If this fails after recording the fidelity again, reword docs/results.md and the README."""
    result = json.loads((quotes.RESULTS / "fidelity-ml-100k.json").read_text("utf-8"))
    auc = {name: estimate["value"] for name, estimate in result["auc"].items()}
    assert result["reference"] == "bias_residual"
    for name in ("soft", "f_sta", "paper"):
        assert result["difference"][name]["high"] < 0, "no model predicts better than bias_residual"
    assert auc["paper"] < auc["f_sta"] - 0.1, "paper predicts much worse than f_sta"
    short = next(row for row in result["contexts"] if row["context"] == 3)
    assert short["auc"]["paper"]["low"] > auc["paper"], "a short history is better for paper"
    assert result["like_rate_error"]["paper"]["low"] > 0, "simulated users like more"
    for name in ("f_mat", "f_sim"):
        assert result["controls"][f"{name}_permuted"]["high"] < auc[name], "permuted: worse"
    assert result["cold_items"]["f_mat"]["value"] > auc["f_mat"] - 0.01, (
        "f_mat is nearly as good for new items"
    )
    assert result["cold_items"]["bias_running"]["low"] > result["cold_items"]["f_mat"]["value"]


def test_the_words_on_validity_hold_of_the_kept_results():
    """If this fails after recording the validity again, reword docs/results.md and docs/validity.md."""
    result, synthetic = (
        json.loads((quotes.RESULTS / f"validity-{name}.json").read_text("utf-8"))
        for name in ("ml-100k", "synthetic")
    )
    taste, item_rate, paper, f_sta = (
        result["simulators"][name] for name in ("taste", "item_rate", "paper", "f_sta")
    )
    assert taste["tau"]["value"] > result["ceiling"]["low"], "nearly as well as the data can show"
    assert taste["tau_difference"]["low"] < 0, "not clearly better than item_rate"
    assert item_rate["tau"]["value"] > taste["tau"]["low"], "item_rate ranks nearly as well"
    assert taste["optimism"]["value"] < 0.03 < 0.04 < taste["optimism"]["high"]
    assert 2 * taste["value_error"]["value"] < item_rate["value_error"]["value"]
    assert taste["own_real"]["low"] < item_rate["own_real"]["value"], "not clearly better picks"
    assert paper["tau"]["high"] < 0.4, "paper hardly ranks"
    random = next(row for row in result["policies"] if row["policy"] == "random")["real"]
    assert random["low"] < paper["own_real"]["value"] < random["high"], "no better than random"
    assert f_sta["tau"]["low"] > 0.8, "f_sta ranks well"
    for row in result["mixed_items"]:
        assert row["auc"]["popular"]["low"] > row["auc"]["taste"]["high"], "popularity wins"
    answered = result["sequences"]["simulators"]
    assert (
        0.5 < answered["taste"]["trees_auc"]["low"] < answered["taste"]["trees_auc"]["high"] < 0.6
    )
    assert answered["paper"]["trees_auc"]["low"] > 0.8
    truth = synthetic["truth"]
    assert truth["soft"]["tau"]["low"] > truth["taste"]["tau"]["high"], "soft is better there"


def test_a_quote_follows_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr(quotes, "RESULTS", tmp_path)
    (tmp_path / "r.json").write_text(
        '{"rows": [{"name": "a", "v": [1]}, {"name": "b", "x": 21987}]}'
    )
    page = "A <!-- number r.json {} {} -->old<!-- /number --> B"
    for path, form, expected in (
        ("rows[name=b].x", "~2", "22,000"),
        ("rows[name=b].x*1e-3", ".1f", "22.0"),
        ("rows[name=b].x*1e-6", "~1", "0.02"),
    ):
        assert f"-->{expected}<!--" in quotes.refreshed(page.format(path, form))
    for path, form in (("rows[name=c].x", ".1f"), ("rows[name=a].x", ".1f"), ("rows", ".1f")):
        with pytest.raises(InputError, match=r"number r\.json .* cannot be quoted"):
            quotes.refreshed(page.format(path, form))
    with pytest.raises(InputError, match="does not exist, but a page quotes it"):
        quotes.refreshed(page.format("x", "d").replace("r.json", "s.json"))
    with pytest.raises(InputError, match="unknown; choose from"):
        quotes.refreshed("<!-- block r.json nothing -->\n<!-- /block -->")


def test_the_command_rewrites_pages_or_says_which_are_out_of_date(tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text("x <!-- number r.json a .1f -->0.5<!-- /number -->")
    (tmp_path / "r.json").write_text('{"a": 0.25}')
    for name in ("ROOT", "RESULTS"):
        monkeypatch.setattr(quotes, name, tmp_path)
    with pytest.raises(InputError, match=r"README\.md: quotes other results"):
        quotes.run_quotes(check=True)
    assert "0.5" in page.read_text()
    quotes.run_quotes()
    assert "-->0.2<!--" in page.read_text()
    quotes.run_quotes(check=True)
    assert "every quote is up to date" in capsys.readouterr().out
