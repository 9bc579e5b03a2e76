# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from cyclemimic.strict_yaml import load_yaml


def test_plain_values_and_a_mapping_that_takes_over_another():
    assert load_yaml("a: [1, x]\n<<: {a: 2, b: null}\n") == {"a": [1, "x"], "b": None}


def test_numbers_are_those_of_json_too():
    numbers = [1e-6, 1e5, -2.5e3, 50.0, 7, 1.5]
    assert load_yaml("[1e-6, 1E5, -2.5e+3, .5e2, 7, 1.5]") == numbers
    assert load_yaml(json.dumps({"a": [1e-06, 1e300]})) == {"a": [1e-06, 1e300]}
    assert load_yaml("[v1e5, 1e, 1e-6x]") == ["v1e5", "1e", "1e-6x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "'a' stands in it more than once"),
        ("a: {b: 1, b: 1}", "'b' stands in it more than once"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: [1", "expected ',' or ']'"),
    ],
)
def test_what_is_not_plain_or_not_unique_is_refused_on_one_line(text, message):
    with pytest.raises(ValueError) as error:
        load_yaml(text)
    assert message in str(error.value) and "\n" not in str(error.value)
