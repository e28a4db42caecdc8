"""Synthetic datasets of any size with a known preference model: for tests against the truth, and for scale.

Items belong to one to three topics and have a latent quality. The better an item, the more positive and the
fewer negative keywords it has; keywords are drawn by Zipf's law from the words of the item's topics. A user has up
to three favourite topics and, among the words of these topics, keywords that they like and keywords that annoy
them. Users meet items by popularity (Zipf's law again), mostly in their favourite topics and never twice, and

    logit P(like) = user bias + item quality + taste (positive keywords liked - negative keywords that annoy).

Keywords and categories pass the filters of every dataset. Tastes are drawn among the keywords that pass, so a
packed folder holds everything that `true_like_probability` needs. The vector of a keyword is the direction of its
topic plus a direction of its own.

Everything is drawn in chunks of items or users, each from a random stream of its own.
"""

from prep.synthetic.config import SyntheticConfig
from prep.synthetic.dataset import SyntheticData, make_synthetic, true_like_probability

__all__ = ["SyntheticConfig", "SyntheticData", "make_synthetic", "true_like_probability"]
