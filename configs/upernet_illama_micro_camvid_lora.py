"""UperNet on the micro iLLaMA of CIFAR-10, CamVid: adapters of low rank (LoRA).

python tools/train.py configs/upernet_illama_micro_camvid_lora.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

Adapters of rank 2 beside the linear layers of the blocks: 19,584 of the backbone's
802,080 parameters, 2.4 %, are trained. The decoder, which starts from scratch, is
trained whole. Needs peft: pip install -e '.[lora]'.
"""

_base_ = ['upernet_illama_micro_camvid.py']

model = dict(backbone=dict(lora=dict(r=2, lora_alpha=4)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'lora_': dict(lr_mult=5.0)}))
