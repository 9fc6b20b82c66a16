"""The page about attacks names tests that there are."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "explanation" / "security.md"


def test_every_attack_of_the_page_is_a_test():
    tests = "\n".join(path.read_text() for path in HERE.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(named) > 25
    assert [name for name in named if f"def {name}(" not in tests] == []
