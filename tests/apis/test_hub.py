import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.apis import inference_model

from illama_seg.apis import configs, get_config, get_model, list_models
from illama_seg.checkpoints import RELEASED

DEMO = 'upernet_illama_demo'
CONFIGS = configs.config_folder()


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(state, other):
    return state.keys() == other.keys() and all(
        torch.equal(state[key], other[key]) for key in state
    )


@pytest.fixture(autouse=True)
def _no_download(monkeypatch):
    def refuse(*args):
        raise AssertionError(f'downloads {args}')

    monkeypatch.setattr('urllib.request.urlopen', refuse)


# Names


def test_names_are_those_of_the_config_files_and_no_two_are_alike():
    files = [
        path.stem for path in CONFIGS.rglob('*.py') if path.parent.name != '_base_'
    ]
    assert list_models() == sorted(files)
    assert len(set(files)) == len(files)


def test_a_pattern_picks_names():
    sizes = ('base', 'large', 'small', 'tiny')
    expected = [f'upernet_illama_{size}_ade20k' for size in sizes]
    assert list_models('upernet_illama_*_ade20k') == expected
    assert list_models('nothing*') == []


@pytest.mark.parametrize('suffix', ['', '.py'])
@pytest.mark.parametrize('folder', ['', 'pretrain/', 'configs/pretrain/'])
def test_a_name_goes_with_and_without_folder_and_suffix(folder, suffix):
    cfg = get_config(f'{folder}illama_tiny_in1k{suffix}', {'log_level': 'ERROR'})
    assert cfg.filename == str(CONFIGS / 'pretrain' / 'illama_tiny_in1k.py')
    assert cfg.log_level == 'ERROR'


@pytest.mark.parametrize(
    'name',
    ['transfer/illama_tiny_in1k', '/pretrain/illama_tiny_in1k.py', '_base_/adamw', ''],
)
def test_a_name_of_another_folder_is_unknown(name):
    with pytest.raises(ValueError, match='no config named'):
        get_config(name)


def test_an_unknown_name_is_answered_by_the_nearest():
    with pytest.raises(ValueError) as error:
        get_model('upernet_ilama_bas_ade20k')
    assert "'upernet_ilama_bas_ade20k'" in str(error.value)
    assert 'the nearest: upernet_illama_base_ade20k' in str(error.value)


@pytest.mark.parametrize('inside', [True, False])
def test_an_installation_is_looked_at_before_what_lies_beside_it(
    inside, tmp_path, monkeypatch
):
    package = tmp_path / 'illama_seg'
    monkeypatch.setattr(configs, '_PACKAGE', package)
    with pytest.raises(FileNotFoundError, match='install illama_seg again'):
        configs.config_folder()
    beside = tmp_path / 'configs'
    own = package / '.mim' / 'configs'
    for folder in (beside, own) if inside else (beside,):
        (folder / '_base_').mkdir(parents=True)
        (folder / '_base_' / 'default_runtime.py').touch()
    assert configs.config_folder() == (own if inside else beside)


# Models


def test_a_model_without_weights_downloads_nothing_and_segments():
    model = get_model('upernet_illama_tiny_camvid')
    assert model.backbone.init_cfg is None and not model.training
    assert model.cfg.filename.endswith('upernet_illama_tiny_camvid.py')
    model.dataset_meta = dict(classes=('a',))
    labels = inference_model(model, torch.zeros(40, 48, 3).byte().numpy())
    assert labels.pred_sem_seg.data.shape == (1, 40, 48)


def test_the_parameters_are_not_listed():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        get_model(DEMO)
        logger.warning('heard')
    finally:
        logger.removeHandler(handler)
    said = [r.getMessage() for r in records if r.levelno >= logging.INFO]
    assert said == ['heard']
    assert not logger.filters


def test_true_takes_the_released_classifier_of_the_recipe(tmp_path, monkeypatch):
    state = state_of(get_model('illama_tiny_in1k'))
    released = {
        key.removeprefix('backbone.').replace('head.fc.', 'head.'): value
        for key, value in state.items()
        if not key.startswith('data_preprocessor.')
    }
    path = tmp_path / 'released.pth'
    torch.save(dict(model=released), path)
    asked = []
    monkeypatch.setattr(
        'illama_seg.checkpoints.checkpoint.fetch_checkpoint',
        lambda url, folder: asked.append(url) or path,
    )
    model = get_model('illama_tiny_in1k', pretrained=True)
    assert asked == [RELEASED['illama-tiny-in1k-75.0.pth'].url]
    assert same(state_of(model), state)


def test_true_else_takes_what_the_training_starts_from(tmp_path):
    name = 'upernet_illama_demo_pretrained'
    backbone = state_of(get_model(name).backbone)
    path = tmp_path / 'backbone.pth'
    torch.save(dict(state_dict=backbone), path)
    options = {'model.backbone.init_cfg.checkpoint': str(path)}
    model = get_model(name, pretrained=True, cfg_options=options)
    assert same(state_of(model.backbone), backbone)
    path.unlink()
    random = get_model(name, pretrained=False, cfg_options=options)
    assert not same(state_of(random.backbone), backbone)


@pytest.mark.parametrize('name', ['tiny_9_soft_mask', DEMO])
def test_true_is_refused_where_there_are_no_weights(name):
    with pytest.raises(ValueError, match=f'{name} starts from no weights'):
        get_model(name, pretrained=True)


def test_a_checkpoint_of_this_model_is_loaded_with_its_classes(tmp_path):
    state = state_of(get_model(DEMO))
    path = tmp_path / 'iter_1.pth'
    meta = dict(dataset_meta=dict(classes=('sky', 'road')))
    torch.save(dict(state_dict=state, meta=meta), path)
    model = get_model(DEMO, pretrained=path)
    assert same(state_of(model), state)
    assert model.dataset_meta == dict(classes=('sky', 'road'))


def test_a_checkpoint_of_another_model_is_refused(tmp_path, golden_checkpoint):
    with pytest.raises(ValueError, match='is not a checkpoint of this model'):
        get_model(DEMO, pretrained=golden_checkpoint)
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        get_model(DEMO, pretrained=tmp_path / 'nowhere.pth')
