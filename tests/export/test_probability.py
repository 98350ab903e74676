from __future__ import annotations

import math

import numpy as np
import pytest

from qa_edge_export.probability import Answered, best_temperature, best_threshold, calibration_error, elsewhere
from qa_edge_export.verify import Question


def sampled(temperature: float, count: int = 4_000) -> Answered:
    """Questions of two spans whose logits differ by `gap`; the better one is right as often as it says at a
    temperature.
    """
    generator = np.random.default_rng(0)
    gaps = generator.exponential(2 * temperature, count)

    def at(other: float) -> np.ndarray:
        return 1 / (1 + np.exp(-gaps / other))

    return Answered(at=at, right=generator.random(count) < at(temperature))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 8.0])
def test_the_temperature_that_made_the_answers_is_found(temperature: float) -> None:
    answered = sampled(temperature)
    found = best_temperature(answered)
    assert found == pytest.approx(temperature, rel=0.12)
    assert calibration_error(answered.at(found), answered.right) < 0.03
    for other in (found / 3, found * 3):
        assert calibration_error(answered.at(other), answered.right) > 0.04


def test_calibration_error_by_hand() -> None:
    # Two bins of fifteen: (0.5, 0.5) with one right, and (0.9, 0.9, 0.9) with none.
    likely, right = np.array([0.5, 0.5, 0.9, 0.9, 0.9]), np.array([True, False, False, False, False])
    assert calibration_error(likely, right) == pytest.approx(3 / 5 * 0.9)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_the_threshold_parts_right_answers_from_those_elsewhere() -> None:
    right, wrong = np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.3, 0.6, 0.75])
    found = best_threshold(right, wrong)
    assert (right >= found).mean() + (wrong < found).mean() == max(
        (right >= t).mean() + (wrong < t).mean() for t in np.linspace(0, 1, 1_001)
    )


def test_elsewhere_is_the_next_context_without_the_answer() -> None:
    contexts = ["a pot and a lid", "A LID of tin", "a pan", "bread"]
    questions = [
        Question("Which?", contexts[0], ("lid",)),
        Question("Who?", contexts[1], ("tin",)),
        Question("What?", contexts[2], ("pan",)),
        Question("Unlabelled?", contexts[3]),
        Question("Where?", contexts[3], ("bread",)),
    ]
    assert [(question.question, question.context) for question in elsewhere(questions)] == [
        ("Which?", contexts[2]),
        ("Who?", contexts[2]),
        ("What?", contexts[3]),
        ("Where?", contexts[0]),
    ]
    assert elsewhere(questions[:1]) == []
    assert math.isclose(best_threshold(np.array([]), np.array([])), 0.0)
