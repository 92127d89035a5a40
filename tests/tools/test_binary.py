"""Foreground and background: the head of one channel through every tool."""

import json
import shutil
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from tiny_run import ROOT, fails, make_ade20k, run_tool

CONFIG = """
_base_ = [
    '{root}/configs/_base_/upernet_illama.py',
    '{root}/configs/_base_/adamw.py',
    '{root}/configs/_base_/default_runtime.py',
]
load = [dict(type='LoadImageFromFile')]
labels = [dict(type='LoadAnnotations'), dict(type='CheckAnnotations', num_classes=2)]
pack = [dict(type='PackSegInputs')]
train_pipeline = load + labels + [dict(type='RandomCrop', crop_size=(64, 64))] + pack
test_pipeline = load + labels + pack
def dataset(split, pipeline):
    return dict(
        type='CheckedSegDataset',
        data_root='{data}',
        data_prefix=dict(
            img_path=f'images/{{split}}', seg_map_path=f'annotations/{{split}}'
        ),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        metainfo=dict(
            classes=('ground', 'sky'), palette=[[90, 60, 30], [120, 180, 230]]
        ),
        pipeline=pipeline,
    )
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dataset('training', train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dataset('validation', test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
loss = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=48, num_layers=4, num_heads=3),
        img_size=64,
        out_indices=(0, 1, 2, 3),
        init_cfg=None,
    ),
    neck=dict(embed_dim=48),
    decode_head=dict(
        in_channels=[48] * 4,
        channels=16,
        num_classes=2,
        out_channels=1,
        threshold=0.4,
        loss_decode=loss,
    ),
    auxiliary_head=None,
    test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(43, 43)),
)
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=4, val_interval=4)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=4), logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config, checkpoint and data of a segmentor with one channel for two classes."""
    folder = tmp_path_factory.mktemp('binary')
    data = make_ade20k(folder / 'data')
    for path in (data / 'annotations').rglob('*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), (labels == 3).astype(np.uint8))  # the sky
    config = folder / 'binary.py'
    config.write_text(CONFIG.format(root=ROOT, data=data))
    run_tool('train', config, '--work-dir', folder / 'run')
    return config, folder / 'run' / 'iter_4.pth', data


def test_a_test_scores_writes_and_draws_it(trained, tmp_path):
    config, checkpoint, data = trained
    out = ['--work-dir', tmp_path, '--out', tmp_path / 'out']
    run_tool('test', config, checkpoint, *out, '--show-dir', tmp_path / 'show')
    scores = json.loads((tmp_path / 'scores.json').read_text())
    (metrics,) = tmp_path.glob('*/*.json')
    found = json.loads(metrics.read_text())
    assert scores['mIoU'] == pytest.approx(found['mIoU'], abs=0.01)
    written = [cv2.imread(str(p), 0) for p in sorted((tmp_path / 'out').iterdir())]
    assert len(written) == 2 and {*np.unique(written)} <= {0, 1}
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 2
    images = data / 'images' / 'validation'
    run_tool('infer', config, checkpoint, images, '--out', tmp_path / 'infer')
    tool = 'analysis/evaluate_predictions'
    folders = [tmp_path / 'out', data / 'annotations' / 'validation']
    run_tool(tool, *folders, '--config', config, '--out', tmp_path / 'again')
    again = json.loads((tmp_path / 'again' / 'scores.json').read_text())
    assert again['mIoU'] == pytest.approx(scores['mIoU'], abs=0.01)


def test_calibration_reads_it_as_two_classes(trained, tmp_path):
    config, checkpoint, _ = trained
    run_tool('analysis/calibration', config, checkpoint, '--out', tmp_path)
    (model,) = json.loads((tmp_path / 'calibration.json').read_text())['models']
    assert 0 <= model['before']['ece'] <= 1, model


def test_a_report_and_the_check_of_the_data_take_it(trained, tmp_path):
    config, checkpoint, _ = trained
    run_tool('analysis/report', checkpoint.parent)
    assert json.loads((checkpoint.parent / 'result.json').read_text())['mIoU'] >= 0
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', config, '--out', tmp_path / 'check')
    assert not end.value.code


def test_quantisation_takes_it(trained, tmp_path):
    config, checkpoint, _ = trained
    out = tmp_path / 'int8.pth'
    run_tool('quantize', 'ptq', config, checkpoint, '--out', out, '--calib', 2)
    assert out.is_file()


def test_masks_of_0_and_255_are_met_before_the_training(trained, tmp_path):
    config, _, data = trained
    root = shutil.copytree(data, tmp_path / 'masks')
    for path in (root / 'annotations').rglob('*.png'):
        cv2.imwrite(str(path), 255 * cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    other = tmp_path / 'binary.py'
    other.write_text(config.read_text().replace(str(data), str(root)))
    message = fails('train', other, '--work-dir', tmp_path / 'run')
    assert 'the only labels are 0 and 255' in message
    assert 'write 1 for the object' in message


DATA = 'test_dataloader.dataset'
WRITTEN = ['test_evaluator.format_only=True', 'test_evaluator.output_dir={}']


LOADED = "dict(type='LoadAnnotations'), dict(type='CheckAnnotations', num_classes=2)"


@pytest.mark.parametrize('state', ['missing', 'empty', 'none', 'not loaded'])
def test_images_without_annotations_are_tested_as_the_message_says(
    state, trained, tmp_path, capsys
):
    config, checkpoint, data = trained
    images = data / 'images' / 'validation'
    (tmp_path / 'annotations').mkdir()
    options = [f'{DATA}.data_prefix.img_path={images}']
    if state == 'not loaded':
        text = config.read_text()
        assert f'[{LOADED}]' in text
        config = tmp_path / 'config.py'
        config.write_text(text.replace(f'[{LOADED}]', '[]'))
    else:
        where = dict(missing=tmp_path / 'no', none=None, empty=tmp_path / 'annotations')
        options += [f'{DATA}.data_prefix.seg_map_path={where[state]}']
    command = ['test', config, checkpoint, '--work-dir', tmp_path / 'work']
    message = fails(*command, '--cfg-options', *options)
    if state in ('missing', 'empty'):
        assert f'{DATA}.data_prefix.seg_map_path=None' in message
        options += [f'{DATA}.data_prefix.seg_map_path=None']
    assert 'test_evaluator.format_only=True test_evaluator.output_dir=DIR' in message
    out = tmp_path / 'labels'
    options += [option.format(out) for option in WRITTEN]
    capsys.readouterr()
    run_tool(*command, '--cfg-options', *options)
    printed = ''.join(capsys.readouterr())
    assert f'no annotations, no scores; label images: {out}' in printed
    assert not (tmp_path / 'work' / 'scores.json').exists()
    run_tool('infer', config, checkpoint, images, '--out', tmp_path / 'infer')
    for path in images.iterdir():
        found, expected = (
            cv2.imread(str(folder / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
            for folder in (out, tmp_path / 'infer' / 'labels')
        )
        np.testing.assert_array_equal(found, expected)


def test_label_images_need_a_folder_of_their_own(trained, tmp_path):
    config, checkpoint, _ = trained
    command = ['test', config, checkpoint, '--work-dir', tmp_path, '--cfg-options']
    message = fails(*command, WRITTEN[0])
    assert 'set test_evaluator.output_dir=DIR' in message
    run_tool(*command, *(option.format(tmp_path / 'labels') for option in WRITTEN))
    assert len(list((tmp_path / 'labels').iterdir())) == 2


def test_mmsegs_own_data_set_gets_the_same_advice(trained, tmp_path):
    config, checkpoint, _ = trained
    command = ['test', config, checkpoint, '--work-dir', tmp_path, '--cfg-options']
    options = [f'{DATA}.type=BaseSegDataset', f'{DATA}.data_prefix.seg_map_path=no']
    message = fails(*command, *options)
    assert 'validation_0.jpg has no annotation: expected' in message
    assert f'set {DATA}.data_prefix without its seg_map_path,' in message
    prefix = [
        f'{DATA}.data_prefix._delete_=True',
        f'{DATA}.data_prefix.img_path=images/validation',
    ]
    written = [option.format(tmp_path / 'labels') for option in WRITTEN]
    run_tool(*command, options[0], *prefix, *written)
    assert len(list((tmp_path / 'labels').iterdir())) == 2


def test_an_empty_folder_of_images_is_met_before_the_model_is_built(trained, tmp_path):
    config, checkpoint, _ = trained
    (tmp_path / 'empty').mkdir()
    options = [
        f'{DATA}.type=BaseSegDataset',
        f'{DATA}.data_prefix.img_path={tmp_path}/empty',
    ]
    command = ['test', config, checkpoint, '--work-dir', tmp_path, '--cfg-options']
    assert f'{DATA} has no image: set its data_root' in fails(*command, *options)


def test_what_needs_annotations_says_so(trained, tmp_path):
    config, checkpoint, _ = trained
    options = ['--cfg-options', f'{DATA}.data_prefix.seg_map_path=None']
    for tool in (
        ['analysis/calibration', config, checkpoint],
        ['data/browse', config, '--split', 'test'],
    ):
        message = fails(*tool, '--out', tmp_path / 'x.png', *options)
        assert f'the images of {DATA} have no annotations' in message


def test_runs_are_compared_by_class_and_by_image(trained, tmp_path):
    _, checkpoint, _ = trained
    runs = [shutil.copytree(checkpoint.parent, tmp_path / name) for name in 'ab']
    run_tool('analysis/compare', *runs, '--out', tmp_path / 'out', '--num-images', 1)
    classes = json.loads((tmp_path / 'out' / 'classes.json').read_text())
    images = json.loads((tmp_path / 'out' / 'images.json').read_text())
    run_tool('analysis/report', runs[0])
    result = json.loads((runs[0] / 'result.json').read_text())
    assert set(classes['classes']) == {'ground', 'sky'}
    assert classes['groups']['a']['mIoU'] == pytest.approx(result['mIoU'])
    for image in images['images']:
        accuracy = image['mean']['a']['accuracy']
        assert accuracy == pytest.approx(result['image_accuracy'][image['image']])
    assert (tmp_path / 'out' / 'images.png').is_file()


def test_augmented_samples_are_drawn(trained, tmp_path):
    config, _, _ = trained
    out = tmp_path / 'browse.png'
    options = ['--num-images', 1, '--draws', 1]
    run_tool('data/browse', config, '--out', out, *options)
    picture = cv2.imread(str(out))
    for colour in ([30, 60, 90], [230, 180, 120]):  # the legend's, BGR
        assert (picture == colour).all(-1).any()


@pytest.fixture(scope='module')
def quantised(trained, tmp_path_factory):
    """Config and checkpoint of a quantisation-aware training from the float model."""
    config, checkpoint, _ = trained
    folder = tmp_path_factory.mktemp('quantised')
    options = [
        'model.backbone.type=QuantizedILLaMA',
        'model.init_cfg.type=Pretrained',
        f'model.init_cfg.checkpoint={checkpoint}',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
    ]
    run_tool('train', config, '--work-dir', folder, '--cfg-options', *options)
    return folder / 'binary.py', folder / 'iter_2.pth'


@pytest.mark.slow
def test_quantisation_aware_training_is_tested_exported_and_compared(
    quantised, trained, tmp_path
):
    config, checkpoint = quantised
    run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'test')
    tested = json.loads((tmp_path / 'test' / 'scores.json').read_text())
    sources, out = [trained[1], checkpoint], tmp_path / 'eval.json'
    if find_spec('onnxscript') and find_spec('onnxruntime'):
        run_tool('export', config, checkpoint, '--out', tmp_path)
        sources.append(tmp_path / f'{config.stem}.onnx')
    options = ['--images', 2, '--repeat', 1, '--batch-size', 1, '--out', out]
    run_tool('quantize', 'eval', config, *sources, *options)
    rows = json.loads(out.read_text())['rows']
    scores = [r['mIoU'] for r in rows if r['precision'] != 'bf16']
    assert len(scores) == len(sources) and all(0 <= score <= 100 for score in scores)
    for score in scores[1:]:
        assert score == pytest.approx(tested['mIoU'], abs=5)


def test_the_multi_scale_test_takes_it(trained, tmp_path):
    config, checkpoint, _ = trained
    tta = config.with_name('tta.py')
    steps = "[dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]"
    flips = ', '.join(
        f"dict(type='RandomFlip', prob={p}, direction='horizontal')" for p in (0.0, 1.0)
    )
    tta.write_text(
        f"_base_ = '{config.name}'\ntta_pipeline = [dict(type='LoadImageFromFile'), "
        f"dict(type='TestTimeAug', transforms=[[{flips}], {steps}])]\n"
    )
    out = ['--work-dir', tmp_path, '--out', tmp_path / 'out']
    run_tool('test', tta, checkpoint, '--tta', *out)
    ids = [cv2.imread(str(path), 0) for path in (tmp_path / 'out').iterdir()]
    assert len(ids) == 2 and {*np.unique(ids)} <= {0, 1}
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert 0 <= scores['mIoU'] <= 100


@pytest.mark.parametrize('kind', ['AveragingTTAModel', 'SegTTAModel'])
def test_one_view_of_the_multi_scale_test_is_the_plain_test(trained, tmp_path, kind):
    config, checkpoint, _ = trained
    views = (
        "[dict(type='RandomFlip', prob=0.0)], [dict(type='LoadAnnotations')], "
        "[dict(type='PackSegInputs')]"
    )
    tta = config.with_name('one_view.py')
    tta.write_text(
        f"_base_ = '{config.name}'\ntta_pipeline = [dict(type='LoadImageFromFile'), "
        f"dict(type='TestTimeAug', transforms=[{views}])]\n"
        f"tta_model = dict(type='{kind}')\n"
    )
    if kind == 'SegTTAModel':  # of mmseg: it applies the sigmoid twice
        message = fails('test', tta, checkpoint, '--tta', '--work-dir', tmp_path)
        assert 'set tta_model.type=AveragingTTAModel' in message
        return
    run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'plain')
    run_tool('test', tta, checkpoint, '--tta', '--work-dir', tmp_path / 'tta')
    plain, view = (
        json.loads((tmp_path / name / 'scores.json').read_text())
        for name in ('plain', 'tta')
    )
    assert view['mIoU'] == plain['mIoU'] and view['aAcc'] == plain['aAcc']


def test_a_loss_landscape_is_measured_of_it(trained, tmp_path):
    config, checkpoint, _ = trained
    options = ['--points', 3, '--num-images', 1, '--out', tmp_path]
    run_tool('analysis/loss_landscape', config, checkpoint, *options)
    (model,) = json.loads((tmp_path / 'loss_landscape.json').read_text())['models']
    losses = np.array(model['loss'], float)
    assert losses.shape == (3, 3) and np.isfinite(losses).all(), model


def test_a_checkpoint_is_converted_and_segments_as_before(trained, tmp_path):
    config, checkpoint, data = trained
    run_tool('checkpoints/convert', checkpoint, tmp_path / 'model.pth')
    (other,) = tmp_path.glob('*.pth')
    images = data / 'images' / 'validation'
    run_tool('infer', config, checkpoint, images, '--out', tmp_path / 'one')
    run_tool('infer', config, other, images, '--out', tmp_path / 'two')
    for path in (tmp_path / 'one' / 'labels').iterdir():
        assert (
            path.read_bytes() == (tmp_path / 'two' / 'labels' / path.name).read_bytes()
        )
