import pytest
import torch
from timm.data import ImageNetInfo

from illama_seg.pretrain import CIFAR10Dataset
from illama_seg.studies.shape_bias.decisions import (
    IMAGENET_CATEGORIES,
    Decision,
    category_numbers,
    conflict_of,
    decide,
    read_decisions,
    shape_bias,
    write_decisions,
)

HEADER = 'subj,session,trial,rt,object_response,category,condition,imagename'
CIFAR = CIFAR10Dataset.METAINFO['classes']


def decisions(*pairs):
    return [Decision('model', response, image) for response, image in pairs]


def test_an_example_of_two_categories_counted_by_hand():
    report = shape_bias(
        decisions(
            ('cat', 'cat1-dog1.png'),  # shape
            ('cat', 'cat2-dog1.png'),  # shape
            ('dog', 'cat3-dog2.png'),  # texture
            ('dog', 'dog1-cat1.png'),  # shape
            ('oven', 'dog1-cat2.png'),  # neither
            ('cat', 'cat1-cat2.png'),  # no conflict
        )
    )
    assert (report['shape'], report['texture'], report['other']) == (3, 1, 1)
    assert report['images'] == 6 and report['no_conflict'] == 1
    assert report['shape_bias'] == 0.75
    assert report['categories']['cat']['shape_bias'] == pytest.approx(2 / 3)
    assert report['categories']['dog']['shape_bias'] == 1
    assert report['mean_of_categories'] == pytest.approx(5 / 6)
    low, high = report['interval']
    # Wilson's: (p + z2/2n +- z sqrt(p (1 - p) / n + z2 / 4n2)) / (1 + z2/n).
    assert low == pytest.approx(0.30064, abs=1e-4)
    assert high == pytest.approx(0.95441, abs=1e-4)


def test_without_a_decision_for_either_there_is_no_share():
    report = shape_bias(decisions(('oven', 'cat1-dog1.png'), ('na', 'cat1-dog2.png')))
    assert report['other'] == 2 and report['shape_bias'] is report['interval'] is None
    assert shape_bias([])['mean_of_categories'] is None


@pytest.mark.parametrize(
    ('name', 'categories'),
    [
        ('cat7-elephant1.png', ('cat', 'elephant')),
        ('airplane10-bird3.png', ('airplane', 'bird')),
        ('0001_cue_s01_0_dog_00_dog10-bird2.png', ('dog', 'bird')),
        ('cue_conflict/cat/cat7-elephant12.jpg', ('cat', 'elephant')),
    ],
)
def test_shape_and_texture_are_read_from_the_name(name, categories):
    assert conflict_of(name) == categories


@pytest.mark.parametrize(
    'name', ['cat.png', 'cat7.png', 'cat-dog.png', 'cat1_dog1.png']
)
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match=f'{name}: expected a file named SHAPE<n>-'):
        conflict_of(name)


# Classes of the categories

WORDS = {
    'airplane': 'airliner',
    'bear': 'bear',
    'boat': 'canoe fireboat lifeboat speedboat yawl',
    'bicycle': 'tandem bicycle|mountain bike',
    'bottle': 'bottle|jug',
    'car': 'station wagon|convertible|sports car',
    'chair': 'chair|throne',
    'clock': 'clock',
    'elephant': 'elephant',
    'keyboard': 'keyboard',
    'knife': 'cleaver',
    'oven': 'rotisserie',
    'truck': 'truck|van|pickup|tow',
}


def test_imagenets_classes_of_a_category_are_named_so():
    info = ImageNetInfo()
    for category, words in WORDS.items():
        words = words.split('|') if '|' in words else words.split()
        for number in IMAGENET_CATEGORIES[category]:
            said = info.index_to_description(number)
            assert any(word in said for word in words), (category, said)
    # Breeds and kinds are in a row: dogs by n0208... to n0211..., cats by n0212...
    for category, low, high in (
        ('dog', 'n02085782', 'n02113978'),
        ('cat', 'n02123045', 'n02125311'),
        ('bird', 'n01514859', 'n02056570'),
    ):
        found = [*map(info.index_to_label_name, IMAGENET_CATEGORIES[category])]
        assert found == sorted(found) and (found[0], found[-1]) == (low, high)


def test_sixteen_categories_share_no_class_of_imagenet():
    numbers = [n for numbers in IMAGENET_CATEGORIES.values() for n in numbers]
    assert len(IMAGENET_CATEGORIES) == 16
    assert len(numbers) == len(set(numbers)) == 207
    sizes = {name: len(numbers) for name, numbers in IMAGENET_CATEGORIES.items()}
    assert (sizes['dog'], sizes['bird'], sizes['cat']) == (109, 49, 6)


def test_classes_named_by_wordnet_are_found_in_any_order():
    info = ImageNetInfo()
    names = info.label_names()[::-1]
    found = category_numbers(1000, names)
    assert {
        name: sorted(999 - number for number in numbers)
        for name, numbers in found.items()
    } == {name: list(numbers) for name, numbers in IMAGENET_CATEGORIES.items()}
    some = category_numbers(3, ['n02690373', 'n02123045', 'n01440764'])
    assert some == {'airplane': (0,), 'cat': (1,)}


def test_thousand_classes_are_imagenets_and_other_words_are_compared():
    assert category_numbers(1000) == IMAGENET_CATEGORIES
    found = category_numbers(10, CIFAR)
    assert found == {
        'airplane': (0,),
        'bird': (2,),
        'boat': (8,),
        'car': (1,),
        'cat': (3,),
        'dog': (5,),
        'truck': (9,),
    }


def test_categories_can_be_given_by_number_and_name():
    mapping = {'pet': ['Cat', 5], 'wheels': ['automobile', 'truck']}
    assert category_numbers(10, CIFAR, mapping) == {'pet': (3, 5), 'wheels': (1, 9)}


@pytest.mark.parametrize(
    ('mapping', 'text'),
    [
        ({'pet': ['lion'], 'a': [1]}, "no class 'lion'; expected a number from 0 to 9"),
        ({'pet': [10], 'a': [1]}, 'no class 10; expected a number from 0 to 9, or one'),
        ({'pet': [1]}, '1 of the categories pet are among them, expected 2'),
    ],
)
def test_categories_that_do_not_fit_the_classes_are_refused(mapping, text):
    with pytest.raises(ValueError, match=text):
        category_numbers(10, CIFAR, mapping)


def test_classes_without_any_category_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r'\(0, 1\): 0 of the .* Set categories to'):
        category_numbers(2, ['0', '1'])


def test_the_decision_is_by_the_mean_over_a_categorys_classes():
    categories = {'many': (0, 1, 2), 'one': (3,)}
    probabilities = torch.tensor([[0.2, 0.2, 0.2, 0.3], [0.4, 0.3, 0.2, 0.1]])
    assert decide(probabilities, categories) == ['one', 'many']


# Published decisions


def write(path, *rows, header=HEADER):
    path.write_text('\n'.join([header, *rows]) + '\n')
    return path


def test_rows_of_models_and_people_are_read(tmp_path):
    path = write(
        tmp_path / 'cue-conflict.csv',
        'resnet50,1,1,NaN,bottle,airplane,NaN,airplane1-bicycle2.png',
        'subject-01,1,1,0.704178,na,dog,0,0001_cue_s01_0_dog_00_dog10-bird2.png',
    )
    model, person = read_decisions(path)
    assert model == Decision('resnet50', 'bottle', 'airplane1-bicycle2.png')
    assert (person.subject, person.response) == ('subject-01', 'na')
    assert (person.shape, person.texture) == ('dog', 'bird')


def test_what_is_written_is_read_again(tmp_path):
    made = decisions(('cat', 'cat1-dog1.png'), ('dog', 'cat1-dog2.png'))
    write_decisions(tmp_path / 'made.csv', made)
    assert read_decisions(tmp_path / 'made.csv') == made
    first = (tmp_path / 'made.csv').read_text().splitlines()[:2]
    assert first == [HEADER, 'model,1,1,NaN,cat,cat,NaN,cat1-dog1.png']


@pytest.mark.parametrize(
    ('rows', 'text'),
    [
        (['m,1,1,NaN,cat,dog,NaN,cat1-dog1.png'], "line 2: category 'dog', but the"),
        (['m,1,1,NaN,cat,cat,NaN,cat.png'], 'line 2: cat.png: expected a file named'),
        (['m,1,1,NaN,cat'], 'line 2: expected 8 columns'),
        (['m,1,1,NaN,cat,cat,NaN,cat1-dog1.png'] * 2, 'line 3: .* is there twice'),
        ([], 'no row; expected'),
    ],
)
def test_a_bad_row_is_named(rows, text, tmp_path):
    path = write(tmp_path / 'bad.csv', *rows)
    with pytest.raises(ValueError, match=rf'bad\.csv.*{text}'):
        read_decisions(path)


def test_another_table_no_text_and_no_file_are_refused(tmp_path):
    path = write(tmp_path / 'other.csv', '1,2', header='subj,session')
    with pytest.raises(ValueError, match='no column trial'):
        read_decisions(path)
    (tmp_path / 'binary.csv').write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match='is no CSV file'):
        read_decisions(tmp_path / 'binary.csv')
    with pytest.raises(FileNotFoundError, match='no file of decisions'):
        read_decisions(tmp_path / 'none.csv')
