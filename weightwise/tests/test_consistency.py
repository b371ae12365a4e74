"""Final answers, their normal form, and what most of them say."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm.post.consistency import final_answer, majority, normalise


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("42", "42"),
        ("First 3 + 4 = 7.\nThen 7 * 6 = 42.\nAnswer: 42", "42"),
        ("The answer is 42.", "42"),
        ("**Answer:** **42**", "42"),
        ("Final answer = 1,234.50", "2469/2"),
        ("so we get\n#### 1,000", "1000"),
        ("Answer: 5\nNo, wait.\nAnswer: 6", "6"),
        (r"Thus \boxed{\frac{3}{4}} is right. Answer: 2", "3/4"),
        (r"\boxed{1} and then \boxed{\text{x}}", "x"),
        (r"It is \boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        ("Answer: (B)", "b"),
        ("Answer: B) a lemon", "b"),
        ("Answer: Paris.", "paris"),
        ("answer: 50 %", "50%"),
        ("Here it is:\n```python\ndef f():\n    return 1  \n```\nDone.", "def f():\n    return 1"),
        ("It goes like this.\n\n  [1, 2.0, 3]\n", "1, 2, 3"),
        ("", None),
        ("...", None),
        (r"\boxed{unclosed", r"\boxed{unclosed"),
    ],
)
def test_final_answer(response, answer):
    """Boxes come before marks, marks before code, code before the last line."""
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    "forms",
    [
        ["0.5", ".5", "1/2", "2/4", r"\frac{1}{2}", r"$\dfrac{1}{2}$", "½", "5e-1", "0.50."],
        ["1,000", "1000", "1000.0", "+1000", "$1000$", "1e3"],
        ["1 1/2", "1½", r"1\frac{1}{2}", "1.5", "3/2"],
        ["-3", "\N{MINUS SIGN}3", "-3.0", r"\(-3\)"],
        ["12.5%", r"12.5\%", "12.50 %"],
        ["B", "b", "(b)", "B.", "b)"],
        ["Paris", " paris. ", '"Paris"', "**Paris**", r"\text{Paris}", "`paris`"],
        ["1, 2, 3", "[1,2,3]", "1,2,3.0"],
        ["x + 1", "X  +  1"],
    ],
)
def test_forms_of_one_answer_are_equal(forms):
    """However it is written, it is the same answer."""
    assert len({normalise(form) for form in forms}) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("1/2", "1/3"), ("50", "50%"), ("1, 2", "2, 1"), ("a", "ab"), ("1/0", "0"), ("-3", "3")],
)
def test_different_answers_stay_different(first, second):
    """The normal form goes no further than what is said."""
    assert normalise(first) != normalise(second)


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_numbers_are_exact(value):
    """Fractions and decimals give the number itself, in lowest terms."""
    assert normalise(f"{value.numerator}/{value.denominator}") == str(value)
    cents = Fraction(round(value * 100), 100)
    assert normalise(f"{float(cents):,.2f}") == str(cents)


@given(st.text(alphabet="aB1230.,/()[]$%*'\"-+ \\{}:e\n", max_size=30))
def test_normal_form_is_final(text):
    """What is in normal form stays as it is."""
    once = normalise(text)
    assert normalise(once) == once


def test_absurd_numbers_are_left_alone():
    """A number with an exponent or digits beyond all use is a text, and costs nothing."""
    assert normalise("1e999999999") == "1e999999999"
    assert normalise("9" * 5000) == "9" * 5000


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=9))
def test_majority_counts_votes(answers):
    """No other answer has more votes, and of equals the first counts."""
    found = majority(answers)
    counts = {answer: answers.count(answer) for answer in answers if answer is not None}
    assert found.votes == max(counts.values(), default=0)
    if counts:
        most = [answer for answer in answers if counts.get(answer) == found.votes]
        assert found.answer == most[0]
    else:
        assert found.answer is None
