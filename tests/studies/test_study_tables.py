import json

from illama_seg.studies.common import read_earlier, spread, write_results
from illama_seg.studies.tables import Table, as_text

TABLE = Table(['model', 'ECE'], [['a', '0.03'], ['b', '-']], title='data', note='all')


def test_text_is_aligned_to_the_left_and_numbers_to_the_right():
    rows = [['long name', '1'], ['b', '0.25']]
    lines = str(Table(['model', 'ECE'], rows, title='data', note='all')).splitlines()
    assert lines[0] == 'data' and lines[-1] == 'all'
    assert '| b         | 0.25 |' in lines and '| long name |    1 |' in lines
    assert as_text([TABLE, TABLE]).count('data') == 2


def test_a_table_of_facts_has_no_heads():
    assert len(str(Table([], [['threads', '2']])).splitlines()) == 3


def test_results_are_a_file_with_tables_and_versions(tmp_path):
    path = tmp_path / 'a.json'
    content = write_results(path, [TABLE], models=[dict(name='a')])
    assert json.loads(path.read_text()) == content
    assert Table(**content['tables'][0]) == TABLE and 'torch' in content['versions']
    assert read_earlier([path, path], 'a.json', len) == 2 * content['models']


def test_indices_are_spread_evenly_and_never_repeated():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 7) == [0, 1, 2] and spread(0, 3) == []
