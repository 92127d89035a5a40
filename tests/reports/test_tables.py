import json
from dataclasses import asdict

import pytest
from hypothesis import given, strategies as st

from illama_seg.reports.tables import (
    LONGEST,
    all_tables,
    format_value,
    is_number,
    page_tables,
)
from illama_seg.studies.tables import Table

MODELS = {
    'models': [
        {'name': 'a', 'all': {'ece': 0.03125, 'diagram': list(range(15))}},
        {'name': 'b', 'all': {'ece': None}, 'temperature': 0.5},
    ],
    'versions': {'torch': '2.6'},
}


def test_tables_that_a_file_stores_are_shown_and_nothing_else():
    table = Table(['model', 'ECE'], [['a', '0.03']], title='calibration', note='all')
    data = MODELS | dict(tables=json.loads(json.dumps([asdict(table)])))
    assert page_tables(data) == [table]


@pytest.mark.parametrize('tables', [None, 3, 'x', [3], [{'name': 'a'}]])
def test_a_file_without_such_tables_is_shown_as_any_other(tables):
    titles = [table.title for table in page_tables(MODELS | dict(tables=tables))]
    assert 'models' in titles


def test_of_any_file_all_that_fits_is_shown_and_curves_are_not():
    data = {
        'batch_size': 4,
        'curve': [[0, 1.0], [1, 2.0]],
        'long': list(range(50)),
        'images': {'scene_1.jpg': {'mean_iou': 5}, '4 by Eq. 2': {'mean_iou': 6}},
        **MODELS,
    }
    tables = {table.title: table for table in all_tables(data)}
    assert set(tables) == {'', 'images', 'models', 'versions'}
    assert tables[''].rows == [('batch size', '4')]
    assert tables['images'].columns == ['', 'mean iou']
    assert tables['images'].rows == [['scene_1.jpg', '5'], ['4 by Eq. 2', '6']]
    assert tables['models'].columns == ['name', 'all, ece', 'temperature']


def test_rows_in_rows_are_tables_of_their_own():
    data = {'models': [{'name': 'a', 'maps': [{'layer': 1, 'rank': 9}]}]}
    first, second = all_tables(data)
    assert (first.title, first.columns) == ('models', ['name'])
    assert (second.title, second.rows) == ('a: maps', [['1', '9']])


def test_a_long_table_says_how_much_it_left_out():
    (table,) = page_tables({'rows': [{'x': n} for n in range(LONGEST + 7)]})
    assert len(table.rows) == LONGEST
    assert table.note == '7 more rows are in the file.'


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
)


@given(values)
def test_any_json_becomes_tables_whose_rows_are_as_long_as_their_head(data):
    for table in all_tables(json.loads(json.dumps(data))):
        assert table.rows
        for row in table.rows:
            assert len(row) == len(table.columns or ('name', 'value'))
            assert all(isinstance(cell, str) for cell in row)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (1988554, '1,988,554'),
        (0.1 + 0.2, '0.3000'),
        (12345.6, '12,346'),
        (1.5e-7, '1.500e-07'),
        (True, 'yes'),
        (None, '-'),
        ([1, 0.5], '1, 0.5000'),
        (float('nan'), 'nan'),
    ],
)
def test_values_are_short(value, text):
    assert format_value(value) == text


def test_numbers_are_told_from_names():
    assert all(map(is_number, ('1,988', '-0.5', '1.500e-07', 'nan', '-', '12.5 %')))
    assert not any(map(is_number, ('epoch_1', '2x', '', '512x512', '1 to 2')))
