"""UperNet on the micro iLLaMA of CIFAR-10, 40 frames of CamVid: LoRA.

python tools/train.py configs/little_data/upernet_illama_micro_camvid40_lora.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

The adapters, 2.4 % of the backbone's parameters, have five times the decoder's rate.
"""

_base_ = ['upernet_illama_micro_camvid40_full.py']

model = dict(backbone=dict(lora=dict(r=2, lora_alpha=4)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'lora_': dict(lr_mult=5.0)}))
