"""UperNet on the strictly causal micro iLLaMA of CIFAR-10, CamVid.

python tools/train.py configs/queries/upernet_illama_micro_strict_camvid.py

What the class tokens and the linear head are compared with. In float32 on every
processor. On a model that was pretrained without a causal mask, all three:
    --cfg-options model.backbone.attn_mask=chunked
    model.backbone.init_cfg.checkpoint=models/illama_micro_cifar10_chunked_seed0.safetensors
"""

_base_ = ['../upernet_illama_micro_camvid.py']

model = dict(
    backbone=dict(
        attn_mask='strict',
        init_cfg=dict(
            checkpoint='models/illama_micro_cifar10_strict_seed0.safetensors'
        ),
    )
)
optim_wrapper = dict(type='OptimWrapper')
