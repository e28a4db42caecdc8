"""Every predictor of the report, in its order.

A new one is a `Predictor` in this tuple; nothing else has to know it. A model of users with parameters of its own
has a module like `taste.py`, whose `fit(data: TrainingData) -> Fitted`

- reads `data.dataset` only: its training interactions, and the keywords and vectors of its items;
- fits again if `data.changed`, and may take the parameters of the packed folder otherwise;
- gives the arrays that it estimated from labels in `Fitted.parameters`, so that a test can compare them.

The report compares any `NAME` with its `NAME_without_keywords` (`keyword_gain`), in all parts of the study.
"""

from benchmarks.fidelity.baselines import BASELINES
from benchmarks.fidelity.predictor import Predictor
from benchmarks.fidelity.taste import TASTE
from benchmarks.fidelity.votes import SIMULATED

PREDICTORS: tuple[Predictor, ...] = (*TASTE, *SIMULATED, *BASELINES)

# The model that the summary speaks of is the first of these that could be fitted.
BEST_MODELS = ("taste", "soft", "f_sta")
# The probability that a user of the default simulator likes an item.
DEFAULT_SIMULATOR = "paper"
