import json

import pytest

from illama_seg.studies import compare_complexity


def test_closed_forms_are_compared_with_counts_for_any_size(tmp_path, reported):
    out = tmp_path / 'new'
    numbers, table = compare_complexity(
        [8, 24], [32, 40], tokens=[7], patch_size=16, out=out
    )
    assert json.loads((out / 'complexity.json').read_text()) == numbers
    rows = {(row['tokens'], row['dims']): row for row in numbers['rows']}
    # 2 x 2 patches, 3 x 3 as 40 is padded to 48, and the tokens given.
    assert list(rows) == [(n, d) for n in (5, 10, 7) for d in (8, 24)]
    row = rows[5, 8]
    assert row['linear'] == 4 * 5 * 64
    assert row['closed_form'] == dict(bidirectional=1680, causal=1280 + 200 + 13 * 8)
    assert row['counted']['bidirectional'] == 1680
    assert row['counted']['causal'] == 1280 + 200 + 15 * 8
    assert row['counted']['strict'] == 1280 + 2 * 15 * 8
    head, shown = reported('complexity.json', numbers)
    assert len(head) == 9 and shown[0][:3] == ['5', '8', '1,680']
    line = next(x for x in table.splitlines() if '|  5 |  8 |' in x)
    assert '1,584' in line and '1,600' in line and '+1.01%' in line


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(dims=[]), r'dims=\[\]: expected at least one'),
        (dict(sizes=[0]), r'sizes=\[0\]'),
        (dict(sizes=[]), 'expected a size or a number of tokens'),
        (dict(tokens=[-1]), r'tokens=\[-1\]'),
        (dict(patch_size=0), 'patch_size=0'),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        compare_complexity(out=tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()
