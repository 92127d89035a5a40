"""Image classification in mmpretrain's style, registered with MMEngine's registries."""

from illama_seg.pretrain.arrays import CIFAR10Dataset, CIFAR100Dataset, DigitsDataset
from illama_seg.pretrain.checks import check_classes, check_topk
from illama_seg.pretrain.classifier import ImageClassifier
from illama_seg.pretrain.folders import (
    ImageFolderDataset,
    ImageNet21KPDataset,
    ImageNetDataset,
)
from illama_seg.pretrain.head import LinearClsHead
from illama_seg.pretrain.metric import Accuracy
from illama_seg.pretrain.preprocess import ClsDataPreprocessor, collate_images
from illama_seg.pretrain.structures import DataSample
from illama_seg.pretrain.transforms import ClsTransform, LoadRGBImage, PackClsInputs

__all__ = [
    'Accuracy',
    'CIFAR10Dataset',
    'CIFAR100Dataset',
    'ClsDataPreprocessor',
    'ClsTransform',
    'DataSample',
    'DigitsDataset',
    'ImageClassifier',
    'ImageFolderDataset',
    'ImageNet21KPDataset',
    'ImageNetDataset',
    'LinearClsHead',
    'LoadRGBImage',
    'PackClsInputs',
    'check_classes',
    'check_topk',
    'collate_images',
]
