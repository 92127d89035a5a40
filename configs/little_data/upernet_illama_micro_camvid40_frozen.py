"""UperNet on the micro iLLaMA of CIFAR-10, 40 frames of CamVid: backbone frozen.

python tools/train.py configs/little_data/upernet_illama_micro_camvid40_frozen.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = ['upernet_illama_micro_camvid40_full.py']

model = dict(backbone=dict(frozen_stages=6))
