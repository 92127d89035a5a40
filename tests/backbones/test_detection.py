"""mmdet's Mask R-CNN on the backbone, where mmdet and mmcv's operators are there."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

import illama_seg  # noqa: F401

pytest.importorskip('mmcv.ops', reason='mmcv is installed without its operators')
pytest.importorskip('mmdet.models', reason='mmdet is not installed')

DIMS, CHANNELS, NUM_CLASSES = 24, 16, 3
SIZE = 64, 80


def roi_extractor(output_size):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=output_size),
        out_channels=CHANNELS,
        featmap_strides=[4, 8, 16, 32],
    )


def assigner(positive, negative):
    return dict(
        type='MaxIoUAssigner',
        pos_iou_thr=positive,
        neg_iou_thr=negative,
        min_pos_iou=negative,
        ignore_iof_thr=-1,
    )


def sampler(num):
    return dict(
        type='RandomSampler', num=num, pos_fraction=0.5, add_gt_as_proposals=True
    )


@pytest.fixture
def detector():
    """Plain maps, rescaled to a pyramid as ViTDet's, then an FPN and Mask R-CNN."""
    coder = dict(type='DeltaXYWHBBoxCoder')
    nms = dict(type='nms', iou_threshold=0.7)
    rpn_proposal = dict(nms_pre=50, max_per_img=20, nms=nms, min_bbox_size=0)
    config = ConfigDict(
        type='MaskRCNN',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_mask=True),
        backbone=dict(
            type='ILLaMA',
            arch=dict(embed_dims=DIMS, num_layers=4, num_heads=3),
            img_size=SIZE,
            out_indices=(0, 1, 2, 3),
        ),
        neck=[
            dict(
                type='mmseg.Feature2Pyramid',
                embed_dim=DIMS,
                rescales=[4, 2, 1, 0.5],
                norm_cfg=dict(type='BN'),
            ),
            dict(type='FPN', in_channels=[DIMS] * 4, out_channels=CHANNELS, num_outs=5),
        ],
        rpn_head=dict(
            type='RPNHead',
            in_channels=CHANNELS,
            feat_channels=CHANNELS,
            anchor_generator=dict(
                type='AnchorGenerator',
                scales=[4],
                ratios=[0.5, 1.0, 2.0],
                strides=[4, 8, 16, 32, 64],
            ),
            bbox_coder=coder,
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=roi_extractor(7),
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                in_channels=CHANNELS,
                fc_out_channels=32,
                num_classes=NUM_CLASSES,
                bbox_coder=coder,
            ),
            mask_roi_extractor=roi_extractor(14),
            mask_head=dict(
                type='FCNMaskHead',
                num_convs=1,
                in_channels=CHANNELS,
                conv_out_channels=CHANNELS,
                num_classes=NUM_CLASSES,
                loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
            ),
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=assigner(0.7, 0.3),
                sampler=dict(sampler(64), add_gt_as_proposals=False),
                allowed_border=-1,
                pos_weight=-1,
            ),
            rpn_proposal=rpn_proposal,
            rcnn=dict(
                assigner=assigner(0.5, 0.5),
                sampler=sampler(16),
                mask_size=28,
                pos_weight=-1,
            ),
        ),
        test_cfg=dict(
            rpn=rpn_proposal,
            rcnn=dict(score_thr=0.0, nms=nms, max_per_img=5, mask_thr_binary=0.5),
        ),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config)
        model.init_weights()
        yield model


@pytest.fixture
def batch():
    """Two random images, a square object in each."""
    masks = pytest.importorskip('mmdet.structures.mask')
    structures = pytest.importorskip('mmdet.structures')
    samples = []
    for label in range(2):
        mask = torch.zeros(1, *SIZE, dtype=torch.uint8)
        mask[:, 8:40, 16:48] = 1
        sample = structures.DetDataSample(
            metainfo=dict(
                img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE, scale_factor=(1.0, 1.0)
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[16.0, 8.0, 48.0, 40.0]]),
            labels=torch.tensor([label]),
            masks=masks.BitmapMasks(mask.numpy(), *SIZE),
        )
        samples.append(sample)
    return torch.randn(2, 3, *SIZE), samples


def test_mask_rcnn_of_mmdet_trains_the_whole_backbone(detector, batch):
    assert type(detector).__module__.startswith('mmdet')
    losses = detector(*batch, mode='loss')
    assert {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'} <= set(losses)
    assert losses['loss_mask'] > 0
    total, _ = detector.parse_losses(losses)
    total.backward()
    for name, parameter in detector.backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_mask_rcnn_of_mmdet_predicts_boxes_and_masks_of_the_image(detector, batch):
    with torch.no_grad():
        samples = detector.eval()(*batch, mode='predict')
    found = samples[0].pred_instances
    assert 0 < len(found) <= 5 and found.masks.shape[1:] == SIZE
    height, width = SIZE
    assert (found.bboxes >= 0).all()
    assert (found.bboxes <= torch.tensor([width, height, width, height])).all()
    assert set(found.labels.tolist()) <= set(range(NUM_CLASSES))
