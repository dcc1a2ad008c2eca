"""The package index that pip knows, asked for real: no stand-in is put in its place here."""

import pytest

from instil.data.sources.fetch import fetch_member


@pytest.mark.slow
def test_real_reviews_out_of_an_archive_within_an_archive():
    path = fetch_member(
        "pypi:vaderSentiment==0.5/vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
        "!/hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
        sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    )
    assert len(path.read_bytes().splitlines()) == 3708
