"""Offline preparation: from ratings and language-model replies to the folder that `jaxsim` reads.

`python -m prep build ml-100k` runs these stages: `sources` (ratings and items), `interactions` (indices, order,
splits), `replies` (the language model's answers), `features` (keywords, categories and embeddings of items),
`statistic_model` (SASRec) and `pack` (the folder on disk). `build` runs them one after the other.
"""
