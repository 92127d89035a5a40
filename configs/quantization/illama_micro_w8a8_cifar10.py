"""The micro iLLaMA of CIFAR-10 with 8-bit weights and activations, from its float one.

python tools/train.py configs/pretrain/illama_micro_cifar10.py
python tools/train.py configs/quantization/illama_micro_w8a8_cifar10.py

Two epochs of quantisation-aware training, causal from the start.
"""

_base_ = ['../pretrain/illama_micro_cifar10.py']

model = dict(
    backbone=dict(type='QuantizedILLaMA'),
    init_cfg=dict(
        type='Pretrained', checkpoint='work_dirs/illama_micro_cifar10/epoch_20.pth'
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(custom_keys=dict(step=dict(lr_mult=0.01, decay_mult=0.0))),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=0, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=2)
custom_hooks = []
