import pytest

from prep.features.attributes import attribute_keywords


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"type": "TV"}, {"tv"}),
        ({"year": "1995"}, {"year 1995"}),
        ({"price": "$9.49"}, set()),
        ({"outdoor seating": "True", "dogs allowed": "False"}, {"outdoor seating"}),
        ({"good for": "lunch, late night"}, {"lunch", "late night"}),
        ({"description": "A long tale of two sisters by the sea."}, set()),
        ({"brand": "Ünïcode & Sons"}, {"ünïcode & sons"}),
    ],
)
def test_attributes_by_hand(attributes, words):
    actual = attribute_keywords(["Slice of Life"], attributes)
    assert actual.pos == actual.neg == {"slice of life"} | words


def test_nothing_known_is_no_keyword():
    assert attribute_keywords([], {}).pos == frozenset()
    assert attribute_keywords(["", "--"], {"x": ""}).pos == frozenset()
