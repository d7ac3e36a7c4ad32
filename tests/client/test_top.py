from elman_client.cli._top import Change, Scrape


def scrape(at: float, counts: dict[str, float]) -> Scrape:
    """Return a scrape of one histogram and its model."""
    model = ("model", "m")
    buckets = {
        ("elman_step_seconds_bucket", frozenset({model, ("le", bound)})): count for bound, count in counts.items()
    }
    return Scrape(at, buckets | {("elman_engines", frozenset({model, ("version", "1")})): 1.0})


def test_a_quantile_is_of_what_is_new():
    """95 % of the values between two looks, within a bucket by its share; values from before do not count."""
    before, now = {"0.1": 50.0, "1": 50.0, "+Inf": 50.0}, {"0.1": 140.0, "1": 150.0, "+Inf": 150.0}
    (model,) = Change(scrape(0, before), scrape(1, now)).look().models

    assert model.step is not None
    assert abs(model.step - (0.1 + 0.9 * 5 / 10)) < 1e-9


def test_nothing_new_is_none():
    """A model that did nothing has no times."""
    counts = {"0.1": 50.0, "+Inf": 50.0}
    (model,) = Change(scrape(0, counts), scrape(1, counts)).look().models

    assert (model.step, model.rows, model.characters_per_second) == (None, None, 0)


def test_values_above_all_bounds_are_at_the_last_one():
    """As Prometheus has it: nothing is known of them but that they are above."""
    (model,) = Change(scrape(0, {}), scrape(1, {"0.1": 0.0, "+Inf": 9.0})).look().models

    assert model.step == 0.1
