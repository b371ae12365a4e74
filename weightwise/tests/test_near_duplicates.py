"""Near-duplicates against brute force on sets of word triples."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm.post.near_duplicates import (
    LEAST_RECALL,
    NUM_HASHES,
    choose_bands,
    find_near_duplicates,
    jaccard,
    shingles,
    signature,
)
from weightwise.lm.post.words import split_words

WORDS = [f"w{k}" for k in range(60)]


def triples(text):
    """Runs of three words as a plain set; short texts are filled up."""
    words = text.split()
    words += [""] * (3 - len(words))
    return {tuple(words[k : k + 3]) for k in range(len(words) - 2)}


def similarity(first, second):
    """Jaccard similarity by its definition."""
    a, b = triples(first), triples(second)
    return len(a & b) / len(a | b)


def brute_force(texts, threshold, num_fixed=0):
    """Every text against every kept one before it."""
    found, kept = [], []
    for index, text in enumerate(texts):
        near = [k for k in kept if similarity(texts[k], text) >= threshold]
        found.append(near[0] if near and index >= num_fixed else None)
        if found[-1] is None:
            kept.append(index)
    return found


def corpus(seed, count, changes):
    """Random texts; most of them are earlier ones with some words changed."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        if texts and draw.random() < 0.7:
            words = draw.choice(texts).split()
            for _ in range(draw.randrange(changes + 1)):
                words[draw.randrange(len(words))] = draw.choice(WORDS)
        else:
            words = draw.choices(WORDS, k=draw.randrange(1, 60))
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_same_as_brute_force(threshold, seed):
    """Which text repeats which is what comparing all pairs says."""
    texts = corpus(seed, count=150, changes=4)
    found = find_near_duplicates(texts, threshold)
    assert found == brute_force(texts, threshold)
    assert any(index is not None for index in found)


def test_fixed_texts_stay():
    """What stands in front is kept, also a repetition, and later texts are measured by it."""
    texts = corpus(3, count=120, changes=2)
    found = find_near_duplicates(texts, 0.5, num_fixed=60)
    assert found == brute_force(texts, 0.5, num_fixed=60)
    assert found[:60] == [None] * 60


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(st.sampled_from(WORDS), max_size=12))
def test_jaccard_of_hashes_is_that_of_the_texts(first, second):
    """Hashing to 64 bits loses nothing."""
    a, b = " ".join(first), " ".join(second)
    assert jaccard(shingles(a), shingles(b)) == similarity(a, b)


def test_signatures_estimate_the_similarity():
    """The share of equal hashes is the similarity, but for luck, and not biased."""
    errors = []
    texts = corpus(4, count=200, changes=8)
    for first, second in zip(texts, texts[1:] + texts[:1], strict=True):
        exact = similarity(first, second)
        equal = np.mean(signature(shingles(first)) == signature(shingles(second)))
        deviation = (exact * (1 - exact) / NUM_HASHES) ** 0.5
        assert abs(equal - exact) <= 5 * deviation
        errors.append(equal - exact)
    assert abs(np.mean(errors)) < 0.01


@settings(max_examples=50)
@given(st.floats(min_value=0.01, max_value=1.0))
def test_bands_see_pairs_at_the_threshold(threshold):
    """All hashes suffice, a pair at the threshold is seen, and longer bands would miss some."""
    bands, rows = choose_bands(threshold)
    assert bands * rows <= NUM_HASHES
    recall = 1 - (1 - threshold**rows) ** bands
    assert recall >= LEAST_RECALL or rows == 1
    longer = rows + 1
    if longer <= NUM_HASHES:
        assert 1 - (1 - threshold**longer) ** (NUM_HASHES // longer) < LEAST_RECALL


def test_layout_does_not_matter_but_symbols_do():
    """Case, width and punctuation are no difference; another sign is."""
    assert find_near_duplicates(["What is 2 + 3?", 'what is "2 + 3"'], 0.8) == [None, 0]
    assert find_near_duplicates(["What is 2 + 3?", "What is 2 - 3?"], 0.8) == [None, None]
    assert find_near_duplicates([], 0.8) == []
    assert find_near_duplicates(["", "..."], 0.8) == [None, 0]


def test_scripts_without_spaces_are_cut_into_characters():
    """One changed character in a long Chinese sentence leaves a near-duplicate."""
    text = "人工智能是研究如何让机器完成需要人类智慧的任务的一门学科它包括许多方向和应用"
    assert split_words("AI是机器 B2") == ["ai", "是", "机", "器", "b2"]
    assert find_near_duplicates([text, text.replace("学科", "学问")], 0.8) == [None, 0]


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    """The message names the range."""
    with pytest.raises(ValueError, match="threshold: expected above 0 and at most 1"):
        find_near_duplicates(["a"], threshold)
