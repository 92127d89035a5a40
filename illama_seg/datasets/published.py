"""Published data sets in mmseg's layouts, with its classes, endings and zero labels."""

from __future__ import annotations

from mmengine.registry import DATASETS
from mmseg.datasets import (
    CityscapesDataset,
    COCOStuffDataset,
    LoveDADataset,
    PascalContextDataset,
    PascalVOCDataset,
    PotsdamDataset,
)

from illama_seg.datasets.segmentation import CheckedSegDataset


@DATASETS.register_module()
class CheckedCityscapesDataset(CheckedSegDataset, CityscapesDataset):
    """Cityscapes (arXiv 1604.01685): 2048x1024 street scenes, 19 classes."""

    HOW_TO_GET = """\
Expected layout (Cityscapes as published, and labels of the 19 classes):
  DATA_ROOT/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
  DATA_ROOT/gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png    0..18, 255 ignored
Get it: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, with an account, of
https://www.cityscapes-dataset.com. The labelTrainIds are not in them: set the variable
CITYSCAPES_DATASET to DATA_ROOT and run csCreateTrainIdLabelImgs of the package
cityscapesscripts, or mmseg's dataset_converters/cityscapes.py."""
    LABELS = (
        'Cityscapes needs the trainIds 0..18 and 255 of *_gtFine_labelTrainIds.png, '
        'not the ids 0..33 of *_gtFine_labelIds.png: csCreateTrainIdLabelImgs of '
        'cityscapesscripts makes them'
    )


@DATASETS.register_module()
class CheckedVOCDataset(CheckedSegDataset):
    """Pascal VOC 2012, with the annotations of SBD beside its own; 21 classes."""

    # mmseg's constructor ends without a word where a folder is missing.
    METAINFO = PascalVOCDataset.METAINFO
    HOW_TO_GET = """\
Expected layout (VOC2012 as published, and SBD's annotations):
  DATA_ROOT/JPEGImages/*.jpg
  DATA_ROOT/SegmentationClass/*.png       0..20, 255 at borders: PNG with a palette
  DATA_ROOT/SegmentationClassAug/*.png    0..20, from SBD
  DATA_ROOT/ImageSets/Segmentation/{train,aug,val}.txt
Get it: VOCtrainval_11-May-2012.tar of http://host.robots.ox.ac.uk/pascal/VOC/voc2012,
and SBD (benchmark.tgz of "Semantic Contours from Inverse Detectors", Berkeley). From
both mmseg's dataset_converters/voc_aug.py makes SegmentationClassAug and aug.txt."""
    LABELS = (
        "VOC's annotations are PNG files with a palette, whose pixels are the numbers "
        '0..20 and 255: a program that saved them in RGB lost the numbers. Take '
        'SegmentationClass from the archive again'
    )


@DATASETS.register_module()
class CheckedPascalContextDataset(CheckedSegDataset):
    """Pascal Context (CVPR 2014): 59 classes and background, which is class 0."""

    METAINFO = PascalContextDataset.METAINFO  # as in CheckedVOCDataset
    HOW_TO_GET = """\
Expected layout (VOC2010 as published, and Pascal Context's annotations):
  DATA_ROOT/JPEGImages/*.jpg
  DATA_ROOT/SegmentationClassContext/*.png    0 (background) and 1..59
  DATA_ROOT/ImageSets/SegmentationContext/{train,val}.txt
Get it: VOCtrainval_03-May-2010.tar of http://host.robots.ox.ac.uk/pascal/VOC/voc2010,
and trainval_merged.json for the package detail
(https://github.com/zhanghang1989/detail-api). With this package mmseg's
dataset_converters/pascal_context.py makes annotations and lists from both."""
    LABELS = (
        "Pascal Context needs 0 (background) and 1..59, as mmseg's "
        'dataset_converters/pascal_context.py writes them, not the numbers up to 459 '
        'of its own files'
    )


@DATASETS.register_module()
class CheckedCOCOStuffDataset(CheckedSegDataset, COCOStuffDataset):
    """COCO-Stuff 164k (arXiv 1612.03716): 80 things and 91 kinds of stuff."""

    HOW_TO_GET = """\
Expected layout (COCO 2017, and COCO-Stuff's annotations, renumbered):
  DATA_ROOT/images/{train2017,val2017}/*.jpg
  DATA_ROOT/annotations/{train2017,val2017}/*_labelTrainIds.png    0..170, 255 ignored
Get it: train2017.zip and val2017.zip of https://cocodataset.org, and
stuffthingmaps_trainval2017.zip of https://github.com/nightrome/cocostuff. From its
annotations mmseg's dataset_converters/coco_stuff164k.py makes the labelTrainIds."""
    LABELS = (
        'COCO-Stuff needs the trainIds 0..170 and 255 of *_labelTrainIds.png, not the '
        "published ids 0..181: mmseg's dataset_converters/coco_stuff164k.py makes them"
    )


@DATASETS.register_module()
class CheckedLoveDADataset(CheckedSegDataset, LoveDADataset):
    """LoveDA (arXiv 2110.08733): 1024x1024 aerial images of land cover, 7 classes.

    Labels are 0 (no data, ignored) and 1..7; 7 classes after ``reduce_zero_label``.
    """

    HOW_TO_GET = """\
Expected layout (Rural and Urban of LoveDA in one folder):
  DATA_ROOT/img_dir/{train,val}/*.png
  DATA_ROOT/ann_dir/{train,val}/*.png    0 (no data, ignored) and 1..7
Get it: Train.zip, Val.zip and Test.zip of https://zenodo.org/records/5706578. From them
mmseg's dataset_converters/loveda.py makes the folders."""
    LABELS = 'LoveDA needs 0 (no data) and 1..7, as published'


@DATASETS.register_module()
class CheckedPotsdamDataset(CheckedSegDataset, PotsdamDataset):
    """ISPRS Potsdam in tiles of 512x512: aerial images of 5 cm a pixel, 6 classes.

    Labels are 0 (border, ignored) and 1..6; 6 classes after ``reduce_zero_label``.
    """

    HOW_TO_GET = """\
Expected layout (Potsdam, cut into tiles of 512x512):
  DATA_ROOT/img_dir/{train,val}/*.png
  DATA_ROOT/ann_dir/{train,val}/*.png    0 (border, ignored) and 1..6
Get it: 2_Ortho_RGB.zip and 5_Labels_all_noBoundary.zip, on request, of
https://www.isprs.org (2D Semantic Labeling Contest, Potsdam). From both mmseg's
dataset_converters/potsdam.py makes the tiles."""
    LABELS = (
        'Potsdam needs 0 (border) and 1..6: the published labels are colours, of which '
        "mmseg's dataset_converters/potsdam.py makes these numbers"
    )
