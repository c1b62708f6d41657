"""What is told of rejected rows."""

from collections import Counter

import pytest

from pipeline.molecules.identity import canonicalize
from pipeline.molecules.rejected import kind_of, warn_if_many
from pipeline.runtime.counts import OTHERS
from pipeline.runtime.errors import RowRejected


def test_reasons_that_quote_their_row_are_one_kind(caplog):
    reasons = Counter({"SMILES does not parse": 3, "empty SMILES": 2, OTHERS: 50})
    reasons.update(f"text after a blank: 'x{i}'; a SMILES has no blanks" for i in range(10))
    warn_if_many(reasons, 100, "d.csv")
    [record] = caplog.records
    assert record.getMessage() == (
        "d.csv: 65 of 100 rows are rejected (65 %), mostly for: text after a blank (10); "
        "SMILES does not parse (3); empty SMILES (2)"
    )


@pytest.mark.parametrize(
    "smiles, kind",
    [
        ("CC ethane: pure", "text after a blank"),
        ("CC |x:", "text after a blank"),
        ("CC |$| a:b", "text after the CXSMILES extension"),
        ("C1C:", "SMILES does not parse"),
    ],
)
def test_a_kind_has_nothing_of_the_row(smiles, kind):
    with pytest.raises(RowRejected) as rejection:
        canonicalize(smiles)
    assert kind_of(str(rejection.value)) == kind
