"""UperNet on the micro iLLaMA of CIFAR-10, CamVid: a causal mask that opens.

python tools/train.py configs/upernet_illama_micro_open_camvid.py

The soft mask goes from causal to bidirectional over the first quarter of the training,
and stays open at inference. In the last 3 of the 6 blocks alone:
    --cfg-options model.backbone.soft_mask_blocks=3
"""

_base_ = ['upernet_illama_micro_camvid.py']

model = dict(backbone=dict(soft_mask_rate=1.0))
custom_hooks = [
    dict(type='SoftMaskHook', mode='linear', cutoff=200, by_epoch=False, rate=0.0)
]
