"""Every predictor is described, and the example of docs/fidelity.md is one more."""

import re
from typing import get_args

import numpy as np

from benchmarks.fidelity.predictor import Kind, Refit
from benchmarks.fidelity.registry import DEFAULT_SIMULATOR, PREDICTORS
from benchmarks.fidelity.study import Settings, Study, predictions
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "fidelity.md").read_text("utf-8")


def test_names_are_unique_and_documented():
    names = [p.name for p in PREDICTORS]
    assert len(set(names)) == len(names)
    assert DEFAULT_SIMULATOR in names
    for predictor in PREDICTORS:
        assert f"`{predictor.name}`" in PAGE, predictor.name
        assert predictor.kind in get_args(Kind)
        assert predictor.refit in get_args(Refit)
        assert predictor.about
        assert re.fullmatch(r"[a-z][a-z0-9_]*", predictor.name)


def test_probabilities_are_probabilities(people):
    study = Study.of(people, Settings(resamples=2))
    scores = predictions(study.fit(study.data), study.events)
    for predictor in PREDICTORS:
        values = scores[predictor.name]
        assert values.dtype == np.float64, predictor.name
        assert values.shape == (len(study.events),)
        assert np.isfinite(values).all()
        if predictor.is_probability:
            assert ((values >= 0) & (values <= 1)).all(), predictor.name


def test_the_example_of_the_documentation_is_a_predictor(people):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    scope: dict = {}
    exec(compile(code[1], "fidelity.md", "exec"), scope)
    study = Study.of(people, Settings(resamples=5), (scope["ITEM_RATE"],))
    scores = predictions(study.fit(study.data), study.events)
    np.testing.assert_array_equal(scores["item_rate"], study.data.item_rate[study.events.item])
    assert study.compare(scores, None)["auc"].keys() == {"item_rate"}
