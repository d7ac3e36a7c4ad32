"""R10: the sentences of examples/tags.py and their labels; tests/web/test_lesson.py shows what is read from them."""

import random

from examples.tags import WORDS, labelled, sentence


def test_a_label_is_the_class_of_the_last_whole_word():
    """Within a word there is none: only its last letter decides."""
    text, labels = labelled([("the", "DET"), ("play", "NOUN"), ("sat", "VERB")])
    assert text == "The play sat."
    assert labels == [None, None, *["DET"] * 2, None, None, None, *["NOUN"] * 2, None, None, *["VERB"] * 2]


def test_some_words_are_nouns_and_verbs():
    """A list of words cannot label them; and every sentence has a noun before its verb."""
    assert set(WORDS["NOUN"]) & set(WORDS["VERB"])
    for seed in range(100):
        classes = [name for _, name in sentence(random.Random(seed))]
        assert classes.index("NOUN") < classes.index("VERB")
        assert classes[0] == "DET"
