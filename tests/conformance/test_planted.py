"""The planted bugs are bugs of this tree: each patch fits, and random programs show it without the real runtime too."""

from __future__ import annotations

import pytest

from tests.conformance.live.planted import PATCHES, with_bug


def test_there_are_three_or_more():
    assert len(PATCHES) >= 3


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_the_patch_fits_the_runtime(patch):
    with with_bug(patch) as tree:
        assert (tree / "runtime" / "actor").is_dir()
