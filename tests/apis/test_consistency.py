"""Contradictions inside a config are listed, each with its fix."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from tiny_run import CONFIG

from illama_seg.apis import get_config, list_models, load_config, parse_cfg_options
from illama_seg.apis.checks import check_whole_batch
from illama_seg.apis.consistency import contradictions, doubts
from illama_seg.apis.dataset_checks import (
    check_class_names,
    check_masks,
    check_names,
    check_zero_labels,
)
from illama_seg.apis.mmseg_rules import hard_pixels
from illama_seg.datasets import CheckedSegDataset
from illama_seg.engine import SafeCheckpointHook
from illama_seg.errors import UserError

CLASSES = {'train': ('a', 'b', 'c'), 'val': ('a', 'b', 'c')}


def config(head=(), **more):
    head = dict(num_classes=3, loss_decode=dict(type='CrossEntropyLoss')) | dict(head)
    loader = dict(
        sampler=dict(type='SeededSampler', sampler=dict(type='InfiniteSampler')),
        dataset=dict(pipeline=[dict(type='CheckAnnotations', num_classes=3)]),
    )
    cfg = dict(
        model=dict(decode_head=head, auxiliary_head=None),
        train_dataloader=loader,
        val_dataloader=dict(dataset=dict(pipeline=[])),
        train_cfg=dict(type='ResumableIterTrainLoop'),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        default_hooks=dict(checkpoint=dict(save_best='mIoU')),
    )
    return Config(cfg | more)


def test_a_sound_config_has_none():
    assert contradictions(config(), CLASSES) == []


SIGMOID = dict(loss_decode=dict(use_sigmoid=True))


@pytest.mark.parametrize(
    ('head', 'text'),
    [
        (dict(num_classes=4), 'num_classes=4, but the train data set names 3 classes'),
        (dict(num_classes=256), 'set model.decode_head.num_classes=255 or less'),
        (dict(out_channels=5), 'out_channels=5, but model.decode_head.num_classes=3'),
        (dict(ignore_index=0), 'val_evaluator.ignore_index=255, but model.decode_head'),
        (
            dict(loss_decode=dict(class_weight=[1.0, 2.0])),
            'class_weight has 2 numbers, but model.decode_head.num_classes=3',
        ),
        (
            dict(loss_decode=[dict(), dict(class_weight=[1.0] * 4)]),
            'class_weight has 4 numbers',
        ),
    ],
)
def test_a_head_that_contradicts_itself_or_the_data_is_named(head, text):
    assert any(text in found for found in contradictions(config(head), CLASSES))


@pytest.mark.parametrize(
    ('head', 'text'),
    [
        (dict(num_classes=1), 'num_classes=1 with a softmax has nothing to learn'),
        (dict(num_classes=2, out_channels=1), 'out_channels=1 needs a sigmoid'),
        (dict(num_classes=2, out_channels=1, **SIGMOID), None),
        (dict(num_classes=2), None),
    ],
)
def test_foreground_and_background_have_a_head_that_can_learn_them(head, text):
    cfg = config(head)
    cfg.train_dataloader.dataset.pipeline = []
    found = contradictions(cfg, {'train': ('a', 'b')[: head['num_classes']]})
    assert (found == []) if text is None else (text in found[0])
    assert text is None or 'use_sigmoid=True' in found[0]


def test_an_auxiliary_head_in_a_list_is_named_by_its_place():
    cfg = config()
    cfg.model.auxiliary_head = [dict(num_classes=3), dict(num_classes=9)]
    (found, *_) = contradictions(cfg, CLASSES)
    assert found.startswith('model.auxiliary_head.1.num_classes=9')


def test_the_check_of_annotations_must_know_as_many_classes():
    cfg = config()
    cfg.train_dataloader.dataset.pipeline[0].num_classes = 150
    (found,) = contradictions(cfg, CLASSES)
    assert 'train_dataloader.dataset.pipeline.0.num_classes=3' in found


@pytest.mark.parametrize('loop', ['EpochBasedTrainLoop', 'ResumableEpochTrainLoop'])
def test_epochs_of_an_endless_sampler_are_found(loop):
    (found,) = contradictions(config(train_cfg=dict(type=loop)), CLASSES)
    assert 'never ends its first epoch' in found and 'DefaultSampler' in found


@pytest.mark.parametrize(
    ('metrics', 'best', 'is_found'),
    [
        (['mDice', 'mFscore'], 'mIoU', True),
        (['mDice', 'mFscore'], 'mFscore', False),
        (['mIoU'], ['mIoU', 'mDice'], True),
        (['mIoU'], 'auto', False),
        (['mIoU'], None, False),
    ],
)
def test_the_best_score_must_be_one_that_the_validation_gives(metrics, best, is_found):
    cfg = config(val_evaluator=[dict(type='IoUMetric', iou_metrics=metrics)])
    cfg.default_hooks.checkpoint.save_best = best
    found = contradictions(cfg, CLASSES)
    assert bool(found) == is_found
    assert not found or 'set one of these' in found[0]


# Every rule, on a config of this package: what is wrong, what is said, what mends it

NAMES = tuple(f'class {number}' for number in range(150))
ENDLESS = dict(type='InfiniteSampler', shuffle=True)
FINITE = dict(type='DefaultSampler', shuffle=False)
RULES = [
    ('model.neck.embed_dim=96', 'hands on 192 channels', 'model.neck.embed_dim=192'),
    (
        'model.decode_head.in_channels=[768,768,768,768]',
        'in_channels=[768, 768, 768, 768], but the backbone hands on 192',
        'model.decode_head.in_channels=[192,192,192,192]',
    ),
    (
        'model.auxiliary_head.in_channels=768',
        'the backbone hands on 192 channels',
        'model.auxiliary_head.in_channels=192',
    ),
    (
        'model.auxiliary_head.in_index=4',
        'model.auxiliary_head.in_index=4, but model.backbone.out_indices=(3, 5, 7, 11)',
        'model.auxiliary_head.in_index=3',
    ),
    (
        'model.neck.rescales=[2,1,0.5]',
        '4 levels, but model.neck.rescales=[2, 1, 0.5]',
        'model.neck.rescales=[2,1,0.5,0.25]',
    ),
    (
        'model.decode_head.loss_decode.loss_name=ce',
        "loss_name='ce' is logged, but not trained on",
        'model.decode_head.loss_decode.loss_name=loss_ce',
    ),
    (
        'model.decode_head.loss_decode.use_sigmoid=True '
        f'model.decode_head.loss_decode.class_weight={[1.0] * 150}'.replace(', ', ','),
        'use_sigmoid=True weights columns of the image, not its 150 classes',
        'model.decode_head.loss_decode.use_sigmoid=False',
    ),
    (
        'model.auxiliary_head.loss_decode.avg_non_ignore=True '
        'model.auxiliary_head.loss_decode.class_weight='
        f'{[1.0] * 150}'.replace(', ', ','),
        'avg_non_ignore=True fails in mmseg beside class_weight',
        'model.auxiliary_head.loss_decode.avg_non_ignore=False',
    ),
    (
        'model.decode_head.loss_decode.type=OhemCrossEntropy',
        '(OhemCrossEntropy) does not take the weight and ignore_index',
        'model.decode_head.loss_decode.type=CrossEntropyLoss',
    ),
    pytest.param(
        'model.auxiliary_head.loss_decode.type=FocalLoss',
        '(FocalLoss) of 150 classes runs on a GPU only',
        'model.auxiliary_head.loss_decode.type=CrossEntropyLoss',
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is there'),
    ),
    (
        'model.data_preprocessor.seg_pad_val=0',
        'the loss would not ignore padding',
        'model.data_preprocessor.seg_pad_val=255',
    ),
    (
        'model.test_cfg.stride=(341,600)',
        'crop_size=(512, 512): pixels between the windows are skipped',
        'model.test_cfg.stride=(512,512)',
    ),
    (
        'model.test_cfg.crop_size=None',
        "mode='slide' with crop_size=None",
        'model.test_cfg.crop_size=(512,512)',
    ),
    (
        'model.test_cfg.stride=None',
        "mode='slide' with stride=None",
        "model.test_cfg.mode='whole'",
    ),
    (
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=True with num_workers=0',
        'val_dataloader.persistent_workers=False',
    ),
    (
        'default_hooks.checkpoint.by_epoch=True',
        'nothing would be saved before the end',
        'default_hooks.checkpoint.by_epoch=False',
    ),
    (
        'param_scheduler.1.by_epoch=True',
        'it would never change',
        'param_scheduler.1.by_epoch=False',
    ),
    (
        'train_cfg.val_begin=200000',
        'ends at 160000: nothing would be validated',
        'train_cfg.val_begin=160000',
    ),
    (
        'optim_wrapper.accumulative_counts=4 effective_batch=16',
        'accumulative_counts=4 has no effect beside effective_batch=16',
        'optim_wrapper.accumulative_counts=1',
    ),
    (
        'val_evaluator.type=Accuracy val_evaluator.topk=(1,3) '
        'default_hooks.checkpoint.save_best=accuracy/top5',
        'the validation gives accuracy/top1, accuracy/top3',
        'default_hooks.checkpoint.save_best=accuracy/top3',
    ),
]


@cache
def plain():
    return load_config(CONFIG)


def overridden(*options):
    cfg = deepcopy(plain())
    for each in options:
        cfg.merge_from_dict(parse_cfg_options(each.split()))
    return cfg


@pytest.mark.parametrize(
    ('wrong', 'text', 'mends'),
    RULES,
    ids=[getattr(rule, 'values', rule)[0][:60] for rule in RULES],
)
def test_a_contradiction_is_named_with_the_option_that_mends_it(wrong, text, mends):
    found = contradictions(overridden(wrong), dict(train=NAMES, val=NAMES))
    assert text in found[0] and all(mends.split('=')[0] in said for said in found)
    assert not contradictions(overridden(wrong, mends), dict(train=NAMES, val=NAMES))


def test_a_validation_without_an_end_is_named():
    cfg = overridden('seed=1')
    cfg.val_dataloader.sampler = ENDLESS
    (found,) = contradictions(cfg, dict(train=NAMES))
    assert found.startswith('val_dataloader.sampler.type=InfiniteSampler: the val loop')
    assert 'shuffle=False' in found
    cfg.val_dataloader.sampler = FINITE
    assert not contradictions(cfg, dict(train=NAMES))


def test_a_label_that_becomes_255_must_be_the_one_that_is_ignored():
    cfg = config(dict(ignore_index=0))
    cfg.val_evaluator.ignore_index = 0
    cfg.train_dataloader.dataset.reduce_zero_label = True
    (found,) = contradictions(cfg, CLASSES)
    assert 'reduce_zero_label=True makes label 0 255' in found
    cfg.train_dataloader.dataset.reduce_zero_label = False
    assert not contradictions(cfg, CLASSES)


def test_both_data_sets_name_the_same_classes_in_the_same_order():
    (found,) = contradictions(config(), CLASSES | dict(val=('a', 'c', 'b')))
    assert "class 1 is 'b' in the train data set, 'c' in the val data set" in found


def test_a_schedule_that_waits_for_a_plateau_follows_the_validations():
    plateau = dict(type='ReduceOnPlateauLR', monitor='mIoU', rule='greater')
    assert not contradictions(config(param_scheduler=[plateau]), CLASSES)


@pytest.mark.parametrize(
    ('wrong', 'text', 'mends'),
    [
        (
            'model.data_preprocessor.size=(1536,1536)',
            '(1536, 1536), but the crops are (512, 512): each is padded to 9 times',
            'model.data_preprocessor.size=(512,512)',
        ),
        (
            'model.data_preprocessor.size=(512,256)',
            'size=(512, 256), but the crops are (512, 512): an image smaller than its',
            'model.data_preprocessor.size=(512,512)',
        ),
        (
            'model.backbone.img_size=224',
            'img_size=224, but the crops are (512, 512): positions are interpolated',
            'model.backbone.img_size=(512,512)',
        ),
        (
            'default_hooks.logger.log_metric_by_epoch=True',
            'ResumableIterTrainLoop has one epoch, so every validation is logged at',
            'default_hooks.logger.log_metric_by_epoch=False',
        ),
    ],
)
def test_what_costs_without_harm_is_doubted_with_the_option_that_mends_it(
    wrong, text, mends
):
    (found,) = doubts(overridden(wrong))
    assert text in found and f'set {mends}' in found
    assert not doubts(overridden(wrong, mends))


@pytest.mark.parametrize('name', [*list_models('upernet_*'), 'illama_base_in1k_384'])
def test_the_configs_of_the_package_have_neither(name):
    cfg = get_config(name)
    head = cfg.model.get('decode_head') or cfg.model.head
    names = (
        NAMES if head.num_classes == 150 else tuple(map(str, range(head.num_classes)))
    )
    assert not contradictions(cfg, dict(train=names, val=names))
    assert not doubts(cfg)


@pytest.mark.parametrize(
    ('sampler', 'images', 'is_found'),
    [
        ('DefaultSampler', 7, True),
        ('DefaultSampler', 8, False),
        ('InfiniteSampler', 7, False),
    ],
)
def test_a_data_set_without_a_whole_batch_is_named(sampler, images, is_found):
    loader = dict(batch_size=8, drop_last=True, sampler=dict(type=sampler))
    cfg = Config(dict(train_dataloader=loader))
    if not is_found:
        return check_whole_batch(cfg, images)
    with pytest.raises(ValueError, match=r'7 of 7 images: set .*batch_size=7 or less'):
        check_whole_batch(cfg, images)
    cfg.train_dataloader.batch_size = 7
    check_whole_batch(cfg, images)


# Values of the command line, and names of classes


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('a=/data/my images/x', '/data/my images/x'),
        ('a=/data/2024,05/x', '/data/2024,05/x'),
        ('a=two words', 'two words'),
        ('a=0,1,2', [0, 1, 2]),
        ('a=(64,64)', (64, 64)),
        ('a=[/x/a,/y/b]', ['/x/a', '/y/b']),
        ('a=1e-3', 0.001),
        ('a=None', None),
        ("a='quoted'", 'quoted'),
        ('a=x=y', 'x=y'),
    ],
)
def test_a_value_that_is_no_list_stays_as_typed(text, value):
    assert parse_cfg_options([text]) == {'a': value}


@pytest.mark.parametrize(
    'value', ["dict(type='A')", "[dict(type='A',b='c')]", "{'a': 1}"]
)
def test_a_dict_is_refused_with_the_way_to_set_it(value):
    with pytest.raises(ValueError, match=r'cfg_options=.a=.*set its keys .* a\.KEY'):
        parse_cfg_options([f'a={value}'])


def test_a_preprocessor_beside_the_model_has_no_effect():
    cfg = overridden('model.data_preprocessor.pad_val=0')
    cfg.data_preprocessor = cfg.model.data_preprocessor | dict(mean=[1.0] * 3)
    (found,) = doubts(cfg)
    assert 'data_preprocessor.mean=[1.0, 1.0, 1.0] has no effect' in found
    cfg.model.data_preprocessor = cfg.data_preprocessor
    assert not doubts(cfg)


def test_one_class_without_a_comma_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"put a comma, \('weed',\)"):
        check_class_names(dict(metainfo=dict(classes=('weed'))), 'train')
    file = tmp_path / 'names.txt'
    file.write_text('weed')
    check_class_names(dict(metainfo=dict(classes=str(file))), 'train')
    check_class_names(dict(metainfo=dict(classes=('weed',))), 'train')


def test_each_class_has_a_colour_also_in_a_wrapper():
    meta = dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]])
    wrong = dict(meta, palette=[[0, 0, 0]])
    wrapped = dict(dataset=dict(datasets=[dict(metainfo=meta), dict(metainfo=wrong)]))
    text = r'train\.dataset\.datasets\.1\.metainfo\.palette has 1 colours, but .* 2'
    with pytest.raises(ValueError, match=text):
        check_class_names(wrapped, 'train')
    wrapped['dataset']['datasets'][1]['metainfo'] = meta
    check_class_names(wrapped, 'train')


@pytest.mark.parametrize(
    'other', [dict(metainfo=dict(classes=('b', 'a'))), dict(reduce_zero_label=True)]
)
def test_data_sets_of_a_wrapper_agree_in_their_classes(other):
    first = dict(type='A', metainfo=dict(classes=('a', 'b')), reduce_zero_label=False)
    wrapper = dict(datasets=[first, first | other])
    with pytest.raises(ValueError, match=r't\.datasets\.1\.\w+=.* set the same in all'):
        check_class_names(wrapper, 't')
    listed = first | dict(metainfo=dict(classes=['a', 'b']))
    check_class_names(dict(datasets=[first, listed]), 't')
    keys = ['classes', 'reduce_zero_label']
    check_class_names(wrapper | dict(ignore_keys=keys), 't')


def scenes(tmp_path, split, reduced, **more):
    (tmp_path / split).mkdir(exist_ok=True)
    for name in ('a.jpg', 'a.png'):
        cv2.imwrite(str(tmp_path / split / name), np.ones((4, 4), np.uint8))
    settings = dict(
        type='CheckedSegDataset',
        data_prefix=dict(
            img_path=str(tmp_path / split), seg_map_path=str(tmp_path / split)
        ),
        metainfo=dict(classes=('a', 'b')),
        reduce_zero_label=reduced,
        **more,
    )
    return settings, DATASETS.build(settings)


@pytest.mark.parametrize('wrap', [False, True])
def test_training_and_validation_count_labels_alike(tmp_path, wrap):
    train, val = scenes(tmp_path, 'train', True), scenes(tmp_path, 'val', False)
    key = 'train_dataloader.dataset.reduce_zero_label=True'
    if wrap:
        train = dict(type='ConcatDataset', datasets=[train[0]])
        train = train, DATASETS.build(train)
        key = key.replace('reduce', 'datasets.0.reduce')
    cfg = Config(
        {
            f'{s}_dataloader': dict(dataset=d)
            for s, (d, _) in dict(train=train, val=val).items()
        }
    )
    with pytest.raises(UserError, match='label 1 is class 1 in the one') as error:
        check_zero_labels(cfg, dict(train=train[1], val=val[1]))
    assert key in str(error.value) and 'set the same' in str(error.value)
    check_zero_labels(cfg, dict(train=train[1]))
    check_zero_labels(cfg, dict(train=val[1], val=val[1]))


@pytest.mark.filterwarnings('ignore:.reduce_zero_label. will be deprecated')
def test_the_loading_step_reduces_labels_as_its_data_set_does(tmp_path):
    step = dict(type='mmseg.LoadAnnotations', reduce_zero_label=True)
    for reduced in (False, True):
        settings, dataset = scenes(tmp_path, 'train', reduced, pipeline=[step])
        cfg = Config(dict(train_dataloader=dict(dataset=settings)))
        if reduced:
            check_zero_labels(cfg, dict(train=dataset))
            continue
        text = r'pipeline\.0\.reduce_zero_label=True \(mmseg.LoadAnnotations\), but '
        with pytest.raises(UserError, match=text):
            check_zero_labels(cfg, dict(train=dataset))


@pytest.mark.parametrize('key', ['seed', 'lr_config', 'evaluation', 'resume_from'])
def test_a_key_of_mmseg_before_1_0_is_said_to_have_no_effect(key):
    (found,) = doubts(Config(plain().to_dict() | {key: 1}))
    assert found.startswith(f'{key} has no effect since mmseg 1.0: set ')


def test_no_variable_of_a_config_of_mmseg_is_taken_for_a_key_of_earlier_ones():
    zoo = Path(mmseg.__file__).parent / '.mim' / 'configs'
    for schedule in sorted((zoo / '_base_' / 'schedules').glob('*.py')):
        cfg = Config(plain().to_dict() | Config.fromfile(schedule).to_dict())
        found = [text for text in doubts(cfg) if 'since mmseg 1.0' in text]
        assert not found, schedule


def test_every_loss_of_mmsegs_configs_is_one_that_its_head_can_call():
    zoo = Path(mmseg.__file__).parent / '.mim' / 'configs' / '_base_' / 'models'
    for model in sorted(zoo.glob('*.py')):
        cfg = Config.fromfile(model, import_custom_modules=False)
        if 'decode_head' in cfg.get('model', {}):
            assert not list(hard_pixels(cfg, CLASSES)), model


def test_a_best_f_score_is_the_highest():
    assert SafeCheckpointHook(save_best='mFscore').rules == ['greater']


def test_a_test_is_not_refused_for_settings_of_a_training():
    cfg = config(train_cfg=dict(type='EpochBasedTrainLoop'))
    cfg.default_hooks.checkpoint.save_best = 'mDice'
    assert len(contradictions(cfg, CLASSES)) == 2
    cfg.test_dataloader = dict(dataset=dict(pipeline=[]))
    assert contradictions(cfg, {'test': CLASSES['train']}) == []


@pytest.mark.parametrize(
    ('labels', 'last', 'text'),
    [
        ((0, 255), 255, 'write 1 for the object'),
        ((0, 255), 1, None),
        ((0, 0), 0, 'the only label is 0, so nothing is learnt: .* from 0 to 1'),
        ((1, 255), 1, 'the only label beside 255 is 1, so nothing'),
        ((255, 255), 255, 'the only label is 255, so nothing'),
        ((255, 255), 0, 'write 1 for the object'),
        ((1, 1), 0, None),
    ],
)
def test_masks_are_refused_only_where_no_annotation_has_another_label(
    labels, last, text, tmp_path
):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for number in range(20):
        mask = np.full((8, 8), labels[0], np.uint8)
        mask[:2] = labels[1]
        mask[4:, 4:] = last if number == 19 else labels[0]
        cv2.imwrite(str(tmp_path / 'labels' / f'{number:02}.png'), mask)
        cv2.imwrite(str(tmp_path / 'images' / f'{number:02}.png'), mask)
    dataset = CheckedSegDataset(
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png',
        metainfo=dict(classes=('a', 'b')),
        pipeline=[],
    )
    if text:
        with pytest.raises(ValueError, match=text):
            check_masks(dataset)
    else:
        check_masks(dataset)


RGB = dict(type='SegDataPreProcessor', mean=[1.0] * 3, std=[1.0] * 3, bgr_to_rgb=True)


@pytest.mark.parametrize(
    ('channels', 'changes', 'text'),
    [
        (3, dict(), None),
        (1, dict(mean=[1.0], std=[1.0]), None),
        (4, dict(), 'mean has 3 numbers, but model.backbone.in_channels=4'),
        (4, dict(), 'data_preprocessor.type=BandsPreProcessor'),
        (1, dict(), 'in_channels=1: set one number for each channel in mean and std'),
        (3, dict(std=[1.0]), 'mean has 3 numbers, model.data_preprocessor.std 1'),
        (
            4,
            dict(mean=[1.0] * 4, std=[1.0] * 4),
            'of which SegDataPreProcessor takes 1 or 3: set model.data_preprocessor.ty',
        ),
        (4, dict(mean=[1.0], std=[1.0]), 'bgr_to_rgb=True does nothing to 4 channels'),
        (4, dict(mean=[1.0], std=[1.0], bgr_to_rgb=False), None),
        (
            4,
            dict(type='BandsPreProcessor', mean=[1.0] * 4, std=[1.0] * 4),
            None,
        ),
        (5, dict(type='BandsPreProcessor'), 'has 3 numbers, but'),
    ],
)
def test_mean_deviation_and_order_fit_the_number_of_channels(channels, changes, text):
    cfg = config()
    cfg.model.backbone = dict(in_channels=channels)
    cfg.model.data_preprocessor = dict(RGB, **changes)
    found = contradictions(cfg, CLASSES)
    assert not found if text is None else any(text in one for one in found), found


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_a_distortion_of_colours_is_for_three_channels(channels):
    cfg = config()
    cfg.model.backbone = dict(in_channels=channels)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PhotoMetricDistortion')]
    cfg.train_dataloader.dataset.pipeline = pipeline
    found = contradictions(cfg, CLASSES)
    assert ('pipeline.1 (PhotoMetricDistortion)' in str(found)) is (channels != 3)


def test_heads_with_a_loss_of_their_own_have_rules_of_their_own():
    name = 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'
    path = Path(mmseg.__file__).parent / '.mim' / 'configs' / name
    if not path.exists():
        pytest.skip('this mmseg was installed without its configs')
    cfg = Config.fromfile(path, import_custom_modules=False)
    assert not contradictions(cfg, {})


MOSAIC = dict(type='RandomMosaic', prob=0.5, img_scale=(64, 64))


@pytest.mark.parametrize(
    ('dataset', 'text'),
    [
        (
            dict(pipeline=[dict(type='RandomRotFlip')]),
            'set train_dataloader.dataset.pi',
        ),
        (
            dict(dataset=dict(pipeline=[dict(type='RandomRotFlip')])),
            'train_dataloader.dataset.dataset.pipeline.0 (RandomRotFlip) interpolates',
        ),
        (dict(pipeline=[dict(type='RandomRotFlip', rotate_prob=0)]), None),
        (dict(pipeline=[dict(type='RandomRotate', prob=1, degree=9)]), None),
        (dict(pipeline=[MOSAIC]), "dict(type='MultiImageMixDataset', dataset=..."),
        (
            dict(
                type='MultiImageMixDataset',
                dataset=dict(pipeline=[]),
                pipeline=[MOSAIC],
            ),
            None,
        ),
    ],
)
def test_steps_that_spoil_labels_or_need_several_images(dataset, text):
    cfg = config()
    cfg.train_dataloader.dataset = dataset
    found = contradictions(cfg, CLASSES)
    assert not found if text is None else any(text in one for one in found), found


@pytest.mark.parametrize('kind', ['DiceLoss', 'TverskyLoss', 'CrossEntropyLoss'])
def test_a_dice_loss_does_not_leave_out_what_is_not_annotated(kind):
    cross = dict(type='CrossEntropyLoss')
    cfg = config(dict(loss_decode=[cross, dict(type=kind, loss_name='loss_2')]))
    found = [text for text in doubts(cfg) if 'DiceLoss) counts pixels' in text]
    assert bool(found) is (kind == 'DiceLoss')
    assert all(one.startswith('model.decode_head.loss_decode.1 ') for one in found)


@pytest.mark.parametrize(
    ('train', 'fix'),
    [
        (
            dict(type='ResumableIterTrainLoop', by_epoch=True, max_epochs=9),
            "type='ResumableEpochTrainLoop', max_epochs=9, val_interval=1)",
        ),
        (
            dict(type='EpochBasedTrainLoop', max_iters=4, max_epochs=9),
            "type='ResumableEpochTrainLoop', max_epochs=9, val_interval=1)",
        ),
        (
            dict(type='IterBasedTrainLoop', max_iters=4, max_epochs=9, val_interval=2),
            "type='ResumableIterTrainLoop', max_iters=4, val_interval=2)",
        ),
        (dict(by_epoch=False, max_iters=4), None),
        (dict(type='ResumableIterTrainLoop', max_iters=4), None),
    ],
)
def test_a_loop_counts_iterations_or_epochs(train, fix):
    found = [t for t in contradictions(config(train_cfg=train), CLASSES) if '_del' in t]
    assert not found if fix is None else fix in found[0]


def test_a_data_set_without_names_is_refused():
    dataset = CheckedSegDataset(lazy_init=True, metainfo=dict(CLASSES=('a',)))
    text = r'val_dataloader.dataset \(CheckedSegDataset\) names no classes: .*CLASSES'
    with pytest.raises(ValueError, match=text):
        check_names(dataset, 'val_dataloader.dataset')


QUERIES = CONFIG.parent / 'queries' / 'illama_tiny_queries_ade20k.py'


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (
            dict(auxiliary_head=dict(type='FCNHead', in_channels=192, num_classes=150)),
            'model.auxiliary_head.in_index=-1 (FCNHead) are the 150 tokens of '
            'model.backbone.num_queries=150: set model.auxiliary_head.in_index=0',
        ),
        (
            dict(decode_head=dict(type='LinearHead', in_index=1)),
            'model.decode_head.in_index=1 (LinearHead) are the 150 tokens',
        ),
        (
            dict(neck=dict(type='Feature2Pyramid', embed_dim=192, rescales=[1])),
            'model.neck (Feature2Pyramid) takes maps, not the 150 tokens of',
        ),
    ],
    ids=['auxiliary', 'linear', 'neck'],
)
def test_a_head_that_would_take_tokens_for_a_map_is_named(changes, text):
    cfg = load_config(QUERIES)
    names = dict(train=NAMES, val=NAMES)
    assert not contradictions(cfg, names)
    for part, values in changes.items():
        cfg.model[part] = dict(cfg.model.get(part) or {}, **values)
    assert any(text in found for found in contradictions(cfg, names))
