import json
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from tiny_run import (
    CONFIG,
    ROOT,
    SIZE,
    SKY,
    data_options,
    fails,
    model_options,
    run_python,
    run_tool,
    start_fresh,
    tiny_options,
)

from illama_seg.apis import (
    build_tester,
    load_config,
    load_segmentor,
    predict,
    read_image,
)
from illama_seg.backbones import ILLaMA
from illama_seg.layers import attention_dispatch
from illama_seg.machine import choices, precision

VALIDATION = ('validation_0', 'validation_1')


@pytest.fixture
def unbuilt(monkeypatch):
    """A model or runner that is built after all fails the test."""
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: pytest.fail('built'))


# Training


def test_train_writes_checkpoints_the_config_and_the_log(run):
    assert (run.work_dir / 'last_checkpoint').read_text().endswith('iter_2.pth')
    assert run.checkpoint.is_file() and run.config.is_file()
    assert 'train data: 4 images' in run.log and 'val data: 2 images' in run.log
    assert 'Traceback' not in run.log


def train_on(run, tmp_path, *arguments, iterations):
    options = tiny_options(run.data, iterations)
    run_tool(
        'train', CONFIG, '--work-dir', tmp_path, *arguments, '--cfg-options', *options
    )
    return torch.load(tmp_path / f'iter_{iterations}.pth', weights_only=False)


def test_resume_goes_on_from_the_newest_checkpoint(run, tmp_path):
    shutil.copy(run.checkpoint, tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / run.checkpoint.name))
    state = train_on(run, tmp_path, '--resume', iterations=3)
    assert state['meta']['iter'] == 3
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    steps = [json.loads(line)['step'] for line in log.read_text().splitlines()]
    assert set(steps) == {3}
    moments = state['optimizer']['state'].values()
    assert {int(moment['step']) for moment in moments} == {3}


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_amp_trains_on_a_cpu(run, tmp_path, monkeypatch, dtype):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', dtype)
    state = train_on(run, tmp_path, '--amp', iterations=2)
    weights = state['state_dict'].values()
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float32}
    wrapper = Config.fromfile(tmp_path / CONFIG.name).optim_wrapper.type
    assert wrapper == 'AutocastOptimWrapper'
    assert state['optimizer']['precision'] == dtype
    assert ('loss_scaler' in state['optimizer']) == (dtype == 'float16')


@pytest.mark.slow
def test_a_resumed_run_keeps_what_was_measured_and_says_what_differs(
    run, tmp_path, monkeypatch
):
    monkeypatch.setenv('ILLAMA_SEG_ATTENTION', 'auto')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))

    def machine(half, flash):
        seconds = {'float32': 1.0, 'bfloat16': half}
        monkeypatch.setattr(precision, 'measure_precisions', lambda device: seconds)
        times = dict(blocked=1.0, flash=flash, reference=3.0)
        monkeypatch.setattr(attention_dispatch, '_times', lambda *case: times)
        choices.forget()

    machine(half=0.5, flash=0.5)
    state = train_on(run, tmp_path / 'run', '--amp', iterations=2)
    assert state['optimizer']['precision'] == 'bfloat16'
    assert 'flash' in state['resume']['choices'].values()
    machine(half=20.0, flash=2.0)
    shutil.rmtree(tmp_path / 'cache', ignore_errors=True)  # a busy machine stores none
    state = train_on(run, tmp_path / 'run', '--amp', '--resume', iterations=3)
    assert state['optimizer']['precision'] == 'bfloat16'
    *_, log = sorted((tmp_path / 'run').glob('*/*.log'))
    text = log.read_text()
    assert 'bfloat16, kept from the resumed run, though here measured 1000.0' in text
    assert "soft mask by 'flash', kept from the resumed run" in text
    fresh = train_on(run, tmp_path / 'fresh', '--amp', iterations=2)
    assert fresh['optimizer']['precision'] == 'float32'
    choices.forget()


def test_missing_ade20k_is_met_before_the_model_is_built(
    unbuilt, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    message = fails('train', ROOT / 'configs' / 'upernet_illama_base_ade20k.py')
    assert 'no folder data/ade/ADEChallengeData2016/images/training' in message
    assert 'DATA_ROOT/images/{training,validation}/*.jpg' in message
    assert 'DATA_ROOT/annotations/{training,validation}/*.png' in message
    assert 'http://data.csail.mit.edu/places/ADEchallenge/' in message
    assert 'train_dataloader.dataset.data_root=DIR' in message


def test_without_a_network_training_says_how_to_go_on(
    run, unbuilt, tmp_path, monkeypatch
):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = 'http://127.0.0.1:9/illama.pth'
    option = f'model.backbone.init_cfg.checkpoint={url}'
    work_dir = ['--work-dir', tmp_path]
    options = ['--cfg-options', *data_options(run.data), option]
    message = fails('train', CONFIG, *work_dir, *options)
    assert url in message
    assert 'give the path of a local file' in message
    assert 'to train without it, set model.backbone.init_cfg=None' in message


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_a_file_in_place_of_the_work_dir_is_named(tool, run, unbuilt, tmp_path):
    (tmp_path / 'taken').touch()
    checkpoint = [run.checkpoint] if tool == 'test' else []
    message = fails(tool, run.config, *checkpoint, '--work-dir', tmp_path / 'taken')
    assert f'--work-dir {tmp_path}/taken: cannot be written' in message


@pytest.mark.parametrize('tool', ['train', 'test', 'infer'])
def test_a_missing_config_is_named(tool, run, unbuilt):
    more = {'train': [], 'test': [run.checkpoint], 'infer': [run.checkpoint, run.data]}
    assert 'no config nowhere.py' in fails(tool, 'nowhere.py', *more[tool])


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('param_scheduler.9.end=3', 'param_scheduler.9.end'),
        ('model.backbone.arch=huge', 'huge'),
        ('model.backbone.out_indices=(3,12)', '12'),
        ('model.backbone.archh=tiny', 'archh'),
        ('model.backbone.type=ILLaMA2', 'ILLaMA2'),
        ('val_dataloader.dataset.folder=x', 'folder'),
        ('param_scheduler.1.end=100', 'param_scheduler.1 ends at iteration 100'),
        (
            'model.decode_head.in_channels=(24,24,24)',
            'in_channels=(24, 24',
        ),
        ('load_from=typo.pth', 'typo.pth'),
    ],
)
def test_an_option_that_does_not_fit_is_named(option, text, run, tmp_path):
    options = [*data_options(run.data), 'model.backbone.init_cfg=None', option]
    message = fails('train', CONFIG, '--work-dir', tmp_path, '--cfg-options', *options)
    assert text in message


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('optim_wrapper.optimizer.type=AdamWW', 'does not fit'),
        ('param_scheduler.1.type=PollyLR', 'PollyLR'),
        ('train_dataloader.batch_size=0', 'batch_size'),
        ('train_dataloader.batch_size=1', 'train_dataloader.batch_size=2'),
    ],
)
def test_an_option_that_shows_only_in_the_run_is_explained(option, text, run, tmp_path):
    options = [*tiny_options(run.data), option]
    work_dir = ['--work-dir', tmp_path]
    message = fails('train', CONFIG, *work_dir, '--cfg-options', *options)
    assert text in message and len(message.splitlines()) == 1


def test_what_a_config_loads_or_resumes_is_not_what_is_tested(run, tmp_path):
    cfg = load_config(run.config, work_dir=run.work_dir)
    other = torch.load(run.checkpoint, weights_only=False)
    for weight in other['state_dict'].values():
        weight.zero_()
    torch.save(other, tmp_path / 'other.pth')
    cfg.load_from, cfg.resume = str(run.checkpoint), True
    cfg.default_scope = 'mmseg'
    start_fresh()
    runner = build_tester(cfg, tmp_path / 'other.pth')
    runner.test()
    assert not any(weight.any() for weight in runner.model.state_dict().values())


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('model.backbone.arch', 'expected KEY=VALUE'),
        ('model.backbone.out_indices=(3,5', 'Imbalanced brackets'),
    ],
)
def test_an_option_that_cannot_be_read_is_named(option, text):
    message = fails('train', CONFIG, '--cfg-options', option)
    assert f'--cfg-options {option}: ' in message and text in message


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_image_met_in_training_ends_it_with_its_name(workers, run, tmp_path):
    data = shutil.copytree(run.data, tmp_path / 'data')
    for image in (data / 'images' / 'training').iterdir():
        image.write_bytes(b'nonsense')
    options = [*tiny_options(data), f'train_dataloader.num_workers={workers}']
    work_dir = ['--work-dir', tmp_path / 'run']
    message = fails('train', CONFIG, *work_dir, '--cfg-options', *options)
    assert str(data / 'images' / 'training') in message
    assert len(message.splitlines()) == 1


def test_pretrained_weights_of_another_size_end_the_run_with_both_sizes(run, tmp_path):
    arch = dict(embed_dims=48, num_layers=4, num_heads=3)
    other = ILLaMA(arch=arch, out_indices=(3,))
    torch.save(other.state_dict(), tmp_path / 'other.pth')
    options = [o for o in tiny_options(run.data) if 'init_cfg' not in o]
    options.append(f'model.backbone.init_cfg.checkpoint={tmp_path / "other.pth"}')
    work_dir = ['--work-dir', tmp_path / 'run']
    message = fails('train', CONFIG, *work_dir, '--cfg-options', *options)
    assert 'other.pth does not fit the model' in message and '48 wide' in message


def test_errors_from_elsewhere_keep_their_traceback(run, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError('elsewhere')

    monkeypatch.setattr(Runner, 'train', fail)
    options = ['--cfg-options', *tiny_options(run.data)]
    with pytest.raises(ValueError, match='elsewhere'):
        run_tool('train', CONFIG, '--work-dir', tmp_path, *options)


# Testing


@pytest.fixture(scope='module')
def tested(run, tmp_path_factory):
    """Results of test.py with --out and --show-dir."""
    folder = tmp_path_factory.mktemp('tested')
    folders = [
        '--work-dir',
        folder,
        '--out',
        folder / 'out',
        '--show-dir',
        folder / 'show',
    ]
    run_tool('test', run.config, run.checkpoint, *folders)
    return folder


def test_test_gives_the_figures_that_training_logged(tested, run):
    (file,) = (path for path in tested.glob('*/*.json'))
    figures = json.loads(file.read_text())
    (log,) = run.work_dir.glob('*/vis_data/scalars.json')
    lines = map(json.loads, log.read_text().splitlines())
    logged = next(line for line in lines if 'mIoU' in line)
    assert figures['mIoU'] == pytest.approx(logged['mIoU'])
    assert figures['aAcc'] == pytest.approx(logged['aAcc'])


@pytest.mark.parametrize('name', ['float32', 'bfloat16'])
def test_a_test_computes_in_what_is_faster_and_names_it(
    run, tmp_path, monkeypatch, name
):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', name)
    seen, before = set(), torch.get_autocast_dtype('cpu')
    real = torch.nn.functional.conv2d

    def conv2d(*args, **kwargs):
        out = real(*args, **kwargs)
        seen.add(out.dtype)
        return out

    monkeypatch.setattr(torch.nn.functional, 'conv2d', conv2d)
    try:
        run_tool('test', run.config, run.checkpoint, '--amp', '--work-dir', tmp_path)
    finally:
        torch.set_autocast_dtype('cpu', before)
    assert getattr(torch, name) in seen
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert scores['precision'] == name


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU tests in float16')
def test_a_test_in_float16_on_a_cpu_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', 'float16')
    message = fails('test', run.config, run.checkpoint, '--amp', '--work-dir', tmp_path)
    assert 'ILLAMA_SEG_PRECISION: mmengine tests in float32 or bfloat16' in message


def test_out_holds_the_predictions_as_ids_of_the_annotations(tested, run):
    model = load_segmentor(run.config, run.checkpoint)
    assert sorted(os.listdir(tested / 'out')) == [f'{name}.png' for name in VALIDATION]
    for name in VALIDATION:
        ids = np.asarray(Image.open(tested / 'out' / f'{name}.png'))
        image = read_image(run.data / 'images' / 'validation' / f'{name}.jpg')
        np.testing.assert_array_equal(ids, predict(model, image) + 1)


def test_test_writes_the_scores_of_what_it_predicted(tested, run, tmp_path, capsys):
    scores = json.loads((tested / 'scores.json').read_text())
    (file,) = (path for path in tested.glob('*/*.json'))
    figures = json.loads(file.read_text())
    for key in ('mIoU', 'mAcc', 'aAcc'):
        assert scores[key] == pytest.approx(figures[key], abs=0.006)
    assert scores['images'] == 2
    for name in ('per_class.csv', 'confusion.png'):
        assert (tested / name).is_file()
    annotations = run.data / 'annotations' / 'validation'
    arguments = [tested / 'out', annotations, '--out', tmp_path]
    run_tool('analysis/evaluate_predictions', *arguments)
    assert scores.pop('precision') == 'float32'
    assert json.loads((tmp_path / 'scores.json').read_text()) == scores
    numbers = (tested / 'confusion.json').read_text()
    assert (tmp_path / 'confusion.json').read_text() == numbers
    printed = capsys.readouterr().out
    assert f'final score {scores["final_score"]:.1f}' in printed
    assert f'{tmp_path}/confusion.png' in printed


def test_evaluation_takes_some_images_and_leaves_out_an_id(
    tested, run, tmp_path, capsys
):
    annotations = tmp_path / 'annotations'
    shutil.copytree(run.data / 'annotations' / 'validation', annotations)
    min(annotations.iterdir()).unlink()
    predictions = shutil.copytree(tested / 'out', tmp_path / 'predictions')
    for path in predictions.iterdir():  # none may be of the id that is left out
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids == SKY, 1, ids).astype(np.uint8)).save(path)
    arguments = [predictions, annotations, '--out', tmp_path, '--partial']
    run_tool('analysis/evaluate_predictions', *arguments)
    whole = json.loads((tmp_path / 'scores.json').read_text())
    run_tool('analysis/evaluate_predictions', *arguments, '--ignore-index', SKY)
    less = json.loads((tmp_path / 'scores.json').read_text())
    assert whole['images'] == less['images'] == 1
    assert 'sky' in whole['classes'] and 'sky' not in less['classes']


def test_predictions_without_annotations_end_with_both_folders(tested, tmp_path):
    arguments = [tested / 'out', tmp_path / 'nowhere', '--out', tmp_path]
    message = fails('analysis/evaluate_predictions', *arguments)
    assert f'no folder {tmp_path / "nowhere"}' in message


def test_show_dir_holds_a_picture_of_each_image(tested):
    pictures = list((tested / 'show').rglob('*.png'))
    assert len(pictures) == 2
    assert all(name in str(sorted(pictures)) for name in VALIDATION)


def test_tta_predicts_at_the_size_of_the_image(run, tmp_path):
    folders = ['--work-dir', tmp_path, '--out', tmp_path / 'out']
    run_tool('test', run.config, run.checkpoint, '--tta', *folders)
    for name in VALIDATION:
        ids = np.asarray(Image.open(tmp_path / 'out' / f'{name}.png'))
        assert ids.shape == SIZE and 1 <= ids.min() <= ids.max() <= 150


# Prediction


@pytest.fixture(scope='module')
def inferred(run, tmp_path_factory):
    """Folders of infer.py's input and output, and its message, for a mixed folder."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('out')
    (source / 'sub').mkdir()
    rng = np.random.default_rng(0)

    def write(name, shape, dtype='uint8'):
        image = rng.integers(0, np.iinfo(dtype).max, shape, dtype)
        assert cv2.imwrite(str(source / name), image)

    write('colour.jpg', (50, 70, 3))
    write('sub/grey.png', (40, 30))
    write('sub/rgba.png', (33, 65, 4))
    write('sub/deep.png', (20, 20, 3), 'uint16')
    write('sub/small.png', (8, 8, 3))
    write('sub/thin.png', (20, 200, 3))
    write('corrupt.jpg', (60, 60, 3))
    whole = (source / 'corrupt.jpg').read_bytes()
    (source / 'corrupt.jpg').write_bytes(whole[: len(whole) // 2])
    message = fails('infer', run.config, run.checkpoint, source, '--out', out)
    return source, out, message


def test_infer_names_images_that_cannot_be_segmented_and_goes_on(inferred):
    source, out, message = inferred
    assert str(source / 'corrupt.jpg') in message
    assert str(source / 'sub' / 'thin.png') in message
    assert len(message.splitlines()) == 3
    assert not (out / 'labels' / 'corrupt.png').exists()


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('colour', (50, 70)),
        ('sub/grey', (40, 30)),
        ('sub/rgba', (33, 65)),
        ('sub/deep', (20, 20)),
        ('sub/small', (8, 8)),
    ],
)
def test_infer_writes_ids_at_the_size_of_the_image_and_an_overlay(
    name, size, inferred, run
):
    source, out, _ = inferred
    ids = np.asarray(Image.open(out / 'labels' / f'{name}.png'))
    (path,) = (p for p in source.rglob('*') if p.stem == name.split('/')[-1])
    model = load_segmentor(run.config, run.checkpoint, fold=True)
    assert ids.shape == size
    np.testing.assert_array_equal(ids, predict(model, read_image(path)) + 1)
    overlay = cv2.imread(str(out / 'overlay' / f'{name}.jpg'))
    assert overlay.shape[0] > size[0] and overlay.shape[1] == size[1]


def test_infer_sums_up_the_share_of_each_class(inferred):
    summary = json.loads((inferred[1] / 'summary.json').read_text())
    assert len(summary) == 5
    for shares in summary.values():
        assert sum(shares.values()) == pytest.approx(1, abs=0.01)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_a_good_folder_ends_well(run, tmp_path, capsys):
    image = run.data / 'images' / 'validation' / 'validation_0.jpg'
    run_tool('infer', run.config, run.checkpoint, image, '--out', tmp_path)
    assert '1 images segmented' in capsys.readouterr().out


def test_results_inside_the_input_folder_are_not_segmented_again(run, tmp_path, capsys):
    shutil.copy(run.data / 'images' / 'validation' / 'validation_0.jpg', tmp_path)
    for _ in range(2):
        run_tool('infer', run.config, run.checkpoint, tmp_path, '--out', tmp_path)
        assert '1 images segmented' in capsys.readouterr().out


@pytest.mark.parametrize('device', ['cuda:99', 'gpu'])
def test_a_device_that_is_not_there_is_named(device, run, tmp_path):
    arguments = [run.config, run.checkpoint, run.data, '--out', tmp_path]
    message = fails('infer', *arguments, '--device', device)
    assert f'--device {device}: cannot be used' in message


def test_infer_segments_at_full_size_with_blended_windows(run, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (150, 170, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'big.png'), image)
    command = [run.config, run.checkpoint, tmp_path / 'big.png', '--out', tmp_path]
    run_tool('infer', *command, '--full-size', '--blend', 'hann', '--batch-size', 3)
    ids = np.asarray(Image.open(tmp_path / 'labels' / 'big.png'))
    model = load_segmentor(run.config, run.checkpoint, fold=True)
    expected = predict(model, image, full_size=True, blend='hann', batch_size=3)
    np.testing.assert_array_equal(ids, expected + 1)


# Checkpoints


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), 'w')


@pytest.mark.parametrize('tool', ['test', 'infer'])
def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(tool, run, tmp_path):
    attack = tmp_path / 'attack.pth'
    torch.save(dict(state_dict=Attack(tmp_path / 'executed')), attack)
    more = [run.data] if tool == 'infer' else ['--work-dir', tmp_path]
    message = fails(tool, run.config, attack, *more)
    assert 'attack.pth was refused' in message
    assert not (tmp_path / 'executed').exists()
    torch.load(attack, weights_only=False)
    assert (tmp_path / 'executed').exists()  # the attack is a real one


def test_a_bare_pickle_is_refused_and_does_not_run(run, tmp_path):
    attack = tmp_path / 'attack.pth'
    attack.write_bytes(pickle.dumps(Attack(tmp_path / 'executed')))
    fails('infer', run.config, attack, run.data)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('tool', ['test', 'infer'])
def test_a_checkpoint_of_another_size_is_refused_by_its_keys(tool, run, tmp_path):
    more = [run.data] if tool == 'infer' else ['--work-dir', tmp_path]
    options = ['--cfg-options', *model_options(dims=48)]
    message = fails(tool, run.config, run.checkpoint, *more, *options)
    assert 'iter_2.pth is not a checkpoint of this model' in message
    assert (
        'backbone.cls_token: the file has (1, 1, 24), the model (1, 1, 48)' in message
    )


# Reports


def test_report_prints_the_table_and_writes_the_files(run, tmp_path, capsys):
    folder = shutil.copytree(run.work_dir, tmp_path / 'run')
    run_tool('analysis/report', folder, '--num-images', 1)
    printed = capsys.readouterr().out
    assert '| sky ' in printed and 'pixel accuracy' in printed
    for name in ('result.json', 'predictions.png', 'curves.png', 'report.html'):
        assert (folder / name).is_file() and name in printed


def test_a_folder_that_is_no_run_cannot_be_reported(tmp_path):
    assert 'is not the work dir of a run' in fails('analysis/report', tmp_path)


# mmseg's own interfaces

PROGRAM = """
import sys
from mmseg.apis import (
    MMSegInferencer, inference_model, init_model, show_result_pyplot
)

config, checkpoint, image = sys.argv[1:]
model = init_model(config, checkpoint, device='cpu')
result = inference_model(model, image)
print('labels', tuple(result.pred_sem_seg.data.shape[-2:]))
show_result_pyplot(model, image, result, show=False, out_file='shown.png')
inferencer = MMSegInferencer(model=config, weights=checkpoint, device='cpu')
print('inferred', inferencer(image)['predictions'].shape)
"""


def test_the_interfaces_of_mmseg_work_from_any_folder(run, tmp_path):
    image = run.data / 'images' / 'validation' / 'validation_0.jpg'
    process = run_python('-c', PROGRAM, run.config, run.checkpoint, image, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert f'labels {SIZE}' in process.stdout
    assert f'inferred {SIZE}' in process.stdout
    assert cv2.imread(str(tmp_path / 'shown.png')) is not None


def test_a_config_of_the_repository_can_be_read_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(CONFIG).model.backbone.arch == 'tiny'


# Data


def test_a_missing_source_of_camvid_is_named(tmp_path):
    nowhere, out = tmp_path / 'nowhere.zip', tmp_path / 'out'
    message = fails('data/prepare_camvid', nowhere, '--out', out)
    assert f'no folder or zip or .tar.gz {nowhere}' in message and not out.exists()


def test_processes_of_the_tests_take_the_package_of_this_checkout(tmp_path):
    code = 'from importlib.util import find_spec; print(find_spec("illama_seg").origin)'
    found = run_python('-c', code, cwd=tmp_path).stdout.strip()
    assert found == str(ROOT / 'illama_seg' / '__init__.py')
