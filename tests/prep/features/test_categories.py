from prep.features.categories import filter_categories

# Of six items: Drama on 4, Comedy on 2, War and Western on 1.
ITEMS = [("Drama", "War"), ("Drama", "Comedy"), ("Comedy",), ("Drama",), ("Drama", "Western"), ()]


def test_names_on_too_many_or_too_few_items_go():
    kept = filter_categories(ITEMS, max_category_share=0.5, min_category_items=2)
    # The first and fifth lose all and keep their rarest; the fourth has only Drama to keep.
    assert kept == [["War"], ["Comedy"], ["Comedy"], ["Drama"], ["Western"], []]


def test_a_share_and_a_number_reached_exactly_stay():
    kept = filter_categories([*ITEMS, (), ()], max_category_share=0.5, min_category_items=2)
    assert kept[1] == ["Comedy", "Drama"]


def test_equally_rare_names_go_by_the_alphabet():
    assert filter_categories([("b", "a")] * 2 + [("c",)], 0.1, 1) == [["a"], ["a"], ["c"]]


def test_single_category_keeps_the_rarest_that_is_left():
    kept = filter_categories(ITEMS, 1.0, 2, single_category=True)
    assert kept == [["Drama"], ["Comedy"], ["Comedy"], ["Drama"], ["Drama"], []]
