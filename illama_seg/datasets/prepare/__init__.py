"""Download public data sets and bring them into the layout that the configs expect."""

from illama_seg.datasets.prepare.ade20k import prepare_ade20k
from illama_seg.datasets.prepare.camvid import prepare_camvid

__all__ = ['prepare_ade20k', 'prepare_camvid']
