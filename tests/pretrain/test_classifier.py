import copy
import logging
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from timm.data import Mixup
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.loss import SoftTargetCrossEntropy

from illama_seg.pretrain import (
    ClsDataPreprocessor,
    DataSample,
    LinearClsHead,
    collate_images,
)

ARCH = dict(embed_dims=8, num_layers=2, num_heads=2)
BACKBONE = dict(
    type='ILLaMA',
    arch=ARCH,
    img_size=8,
    patch_size=4,
    out_indices=-1,
    out_type='cls_token',
)


def classifier(num_classes=5, **settings):
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=8)
    return MODELS.build(
        dict(type='ImageClassifier', **{'backbone': BACKBONE, 'head': head} | settings)
    )


def samples(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def images(count, size=8):
    generator = torch.Generator().manual_seed(1)
    shape = (3, size, size)
    return [
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        for _ in range(count)
    ]


# The classifier


def test_the_three_modes_agree():
    model = classifier().eval()
    model.init_weights()
    batch = model.data_preprocessor(
        dict(inputs=images(4), data_samples=samples([0, 1, 2, 3]))
    )
    logits = model(**batch, mode='tensor')
    predicted = model(**batch, mode='predict')
    loss = model(**batch, mode='loss')['loss']
    assert logits.shape == (4, 5)
    for sample, row in zip(predicted, logits, strict=True):
        torch.testing.assert_close(sample.pred_score, row.softmax(0))
        assert sample.pred_label.tolist() == [row.argmax().item()]
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.arange(4)))


def test_images_without_annotation_are_predicted():
    model = classifier().eval()
    found = model.test_step(dict(inputs=images(2)))
    assert [set(sample.keys()) for sample in found] == [
        {'pred_score', 'pred_label'}
    ] * 2


def test_a_training_step_changes_every_parameter():
    model = classifier()
    model.init_weights()
    optimizer = dict(type='SGD', lr=1.0)
    wrapper = build_optim_wrapper(model, dict(optimizer=optimizer))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logs = model.train_step(
        dict(inputs=images(4), data_samples=samples([0, 1, 2, 3])), wrapper
    )
    assert logs['loss'] > 0
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (dict(backbone=BACKBONE | dict(out_type='featmap')), "out_type='featmap'"),
        (
            dict(head=dict(type='LinearClsHead', num_classes=5, in_channels=9)),
            'in_channels=9, but the backbone has 8',
        ),
        (
            dict(init_cfg=dict(type='Xavier')),
            r'init_cfg=.*expected None or dict\(type=',
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        classifier(**settings)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode='train'"):
        classifier()(torch.zeros(1, 3, 8, 8), mode='train')


def test_the_classifier_of_mmpretrain_takes_the_backbone():
    theirs = pytest.importorskip('mmpretrain.models')
    structures = pytest.importorskip('mmpretrain.structures')
    head = dict(type='LinearClsHead', num_classes=5, in_channels=8)
    model = theirs.build_classifier(
        dict(type='ImageClassifier', backbone=BACKBONE, head=head)
    )
    assert type(model).__module__.startswith('mmpretrain')
    model.init_weights()
    data = [structures.DataSample().set_gt_label(label) for label in range(2)]
    inputs = torch.randn(2, 3, 8, 8)
    assert model(inputs, data, mode='loss')['loss'] > 0
    assert model(inputs, data, mode='predict')[0].pred_score.shape == (5,)
    ours = set(vars(DataSample)['__annotations__'])
    assert all(hasattr(structures.DataSample, f'set_{name}') for name in ours)


# From one classifier to the next


@pytest.fixture
def messages(caplog, monkeypatch):
    """What a classifier says when it loads."""
    logger = logging.getLogger('illama_seg')
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    caplog.set_level(logging.INFO, logger='illama_seg')
    return caplog


@pytest.fixture
def trained(tmp_path):
    """Path of a checkpoint as tools/train.py writes it, and its classifier."""
    model = classifier()
    model.init_weights()
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path, model


def loaded(path, **settings):
    model = classifier(
        init_cfg=dict(type='Pretrained', checkpoint=str(path)), **settings
    )
    model.init_weights()
    return model


def test_a_classifier_of_as_many_classes_is_loaded_whole(trained):
    path, model = trained
    found = loaded(path).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(found[key], value), key


def test_a_released_file_is_loaded_with_its_head(tmp_path):
    model = classifier()
    model.init_weights()
    state = {k.removeprefix('backbone.'): v for k, v in model.state_dict().items()}
    state = {key.replace('head.fc.', 'head.'): value for key, value in state.items()}
    torch.save(dict(model=state), tmp_path / 'released.pth')
    found = loaded(tmp_path / 'released.pth')
    assert torch.equal(found.head.fc.weight, model.head.fc.weight)
    assert torch.equal(found.backbone.pos_embed, model.backbone.pos_embed)


def test_a_head_of_other_classes_is_left_out_and_said_so(trained, messages):
    path, model = trained
    found = loaded(path, head=dict(type='LinearClsHead', num_classes=7, in_channels=8))
    assert found.head.fc.weight.shape == (7, 8)
    assert torch.equal(found.backbone.cls_token, model.backbone.cls_token)
    text = 'classifies 5 classes from 8 channels, the model 7 from 8: its head is left'
    assert text in messages.text


def test_another_resolution_is_loaded_with_the_head(trained):
    path, model = trained
    found = loaded(path, backbone=BACKBONE | dict(img_size=16))
    assert found.backbone.pos_embed.shape == (1, 17, 8)
    last = found.backbone.pos_embed[:, -1], model.backbone.pos_embed[:, -1]
    assert torch.equal(*last)
    assert torch.equal(found.head.fc.weight, model.head.fc.weight)


def test_a_file_without_a_classifier_is_said_to_have_none(trained, messages, tmp_path):
    _, model = trained
    torch.save(model.backbone.state_dict(), tmp_path / 'backbone.pth')
    found = loaded(tmp_path / 'backbone.pth')
    assert torch.equal(found.backbone.cls_token, model.backbone.cls_token)
    assert 'has no classifier: the head starts anew' in messages.text


# The head

classes = st.integers(2, 6)


@given(num_classes=classes, smoothing=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_hard_labels_are_smoothed_as_written_in_the_paper_of_inception(
    num_classes, smoothing, seed
):
    generator = torch.Generator().manual_seed(seed)
    head = LinearClsHead(num_classes, 4, smoothing)
    feats = torch.randn(3, 4, generator=generator)
    labels = torch.randint(0, num_classes, (3,), generator=generator)
    log_p = head((feats,)).log_softmax(1)
    target = (1 - smoothing) * F.one_hot(labels, num_classes) + smoothing / num_classes
    found = head.loss((feats,), samples(labels))['loss']
    torch.testing.assert_close(found, -(target * log_p).sum(1).mean())


@pytest.mark.parametrize(('mixup', 'cutmix'), [(0.8, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_mixed_batches_have_timms_images_and_smoothed_loss(mixup, cutmix):
    data = dict(inputs=images(6), data_samples=samples(range(6)))
    preprocess = ClsDataPreprocessor(6, mixup=mixup, cutmix=cutmix)
    head = LinearClsHead(6, 3 * 8 * 8, 0.1)
    np.random.seed(3)
    batch = preprocess(data, training=True)
    feats = batch['inputs'].flatten(1)
    np.random.seed(3)
    plain = ClsDataPreprocessor()(data)['inputs']
    mix = Mixup(mixup, cutmix, label_smoothing=0.1, num_classes=6)
    mixed, target = mix(plain, torch.arange(6))
    torch.testing.assert_close(batch['inputs'], mixed)
    expected = SoftTargetCrossEntropy()(head((feats,)), target)
    found = head.loss((feats,), batch['data_samples'])['loss']
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('bad', [dict(num_classes=1), dict(label_smoothing=1.0)])
def test_a_head_with_arguments_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match='LinearClsHead'):
        LinearClsHead(**dict(num_classes=3, in_channels=2) | bad)


# The preprocessor


def test_images_are_normalised_as_timm_does():
    pixels = images(2)
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1)
    batch = ClsDataPreprocessor()(dict(inputs=pixels))['inputs']
    expected = (torch.stack(pixels) / 255 - mean) / std
    torch.testing.assert_close(batch, expected)


def test_erasing_fills_part_of_some_images_with_noise_and_only_in_training():
    preprocess = ClsDataPreprocessor(erasing=0.25)
    pixels = [torch.zeros(3, 32, 32, dtype=torch.uint8)] * 400
    plain = preprocess(dict(inputs=pixels))['inputs']
    erased = preprocess(dict(inputs=pixels), training=True)['inputs'] != plain
    share = erased.flatten(1).any(1).float().mean()
    assert 0.17 < share < 0.33
    areas = erased.all(1).flatten(1).float().mean(1)
    assert 0.01 < areas[areas > 0].min() and areas.max() < 0.4
    again = preprocess(dict(inputs=pixels))['inputs']
    assert torch.equal(again, plain)


def test_validation_is_not_mixed():
    data = dict(inputs=images(4), data_samples=samples(range(4)))
    batch = ClsDataPreprocessor(4, mixup=0.8)(data)
    assert not any('gt_score' in sample for sample in batch['data_samples'])


@pytest.mark.parametrize(
    'bad', [dict(mixup=-0.1), dict(cutmix=-1), dict(erasing=1.5), dict(mixup=0.5)]
)
def test_a_preprocessor_with_arguments_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match='ClsDataPreprocessor'):
        ClsDataPreprocessor(**bad)


def test_an_odd_batch_is_not_mixed_and_the_options_are_named():
    data = dict(inputs=images(3), data_samples=samples(range(3)))
    with pytest.raises(ValueError, match=r'3 images .*train_dataloader\.batch_size'):
        ClsDataPreprocessor(3, mixup=0.5)(data, training=True)


def test_images_of_several_sizes_are_refused():
    with pytest.raises(
        ValueError, match=r'differ in shape: .*\(3, 8, 8\), \(3, 9, 9\)'
    ):
        ClsDataPreprocessor()(dict(inputs=[*images(1), *images(1, 9)]))


# On the way from the workers


def items(count):
    pairs = zip(images(count), samples(range(count)), strict=True)
    return [dict(inputs=image, data_samples=sample) for image, sample in pairs]


def test_a_batch_made_by_the_workers_is_preprocessed_as_a_list_is():
    preprocess = ClsDataPreprocessor(4, mixup=0.5, erasing=0.5)

    def run(data):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        return preprocess(data, training=True)

    batch, as_list = collate_images(items(4)), items(4)
    assert batch['inputs'].dtype == torch.uint8
    found = run(batch)
    expected = run({key: [item[key] for item in as_list] for key in as_list[0]})
    assert torch.equal(found['inputs'], expected['inputs'])
    ours, theirs = (
        torch.stack([sample.gt_score for sample in output['data_samples']])
        for output in (found, expected)
    )
    assert torch.equal(ours, theirs)


def test_preprocessing_leaves_what_it_was_given():
    batch = torch.stack(images(2)).float()
    before = batch.clone()
    ClsDataPreprocessor(2, mixup=0.5, erasing=1.0)(
        dict(inputs=batch, data_samples=samples(range(2))), training=True
    )
    assert torch.equal(batch, before)


def test_workers_refuse_images_of_several_sizes():
    differing = [items(1)[0], dict(inputs=images(1, size=6)[0], data_samples=None)]
    with pytest.raises(ValueError, match=r'differ in shape: .*\(3, 6, 6\)'):
        collate_images(differing)


def test_a_sample_travels_without_a_tensor_and_arrives_whole():
    sample = DataSample(metainfo=dict(img_path='a.jpg')).set_gt_label(7)
    data = pickle.dumps(sample)
    assert b'torch._utils' not in data
    for found in (pickle.loads(data), copy.deepcopy(sample)):
        assert torch.equal(found.gt_label, torch.tensor([7]))
        assert found.img_path == 'a.jpg' and found.keys() == ['gt_label']
    assert torch.equal(sample.gt_label, torch.tensor([7]))
    with_score = pickle.loads(pickle.dumps(sample.set_gt_score([0.25, 0.75])))
    assert torch.equal(with_score.gt_score, torch.tensor([0.25, 0.75]))


def test_a_sample_without_label_travels_too():
    assert not pickle.loads(pickle.dumps(DataSample())).keys()
