"""Offline preparation: from ratings and language-model replies to the folder that `jaxsim` reads.

`python -m prep build ml-100k` runs the stages, each a module: `sources` (ratings and items),
`interactions` (indices, order, splits), `replies` (the language model's answers), `keywords` and
`categories` (which of them say anything), `embedding` (Eq. 4, 5), `statistic_model` (SASRec) and
`pack` (the folder on disk). `build` strings them together.
"""
