"""iLLaMA-S with 8-bit weights and activations: arXiv 2404.06773, Table 15.

Expected (the paper's figure): 77.4 top-1; 79.9 with 32 bits.
Memory: not measured. Batch 4096 by gradient accumulation.
The learning rate is Table 15's; all else is explained in illama_tiny_w8a8_in1k.py.

1 GPU:  python tools/train.py configs/quantization/illama_small_w8a8_in1k.py --amp
8 GPUs: tools/dist_train.sh configs/quantization/illama_small_w8a8_in1k.py 8 --amp
"""

_base_ = ['../pretrain/illama_small_in1k.py']

model = dict(backbone=dict(type='QuantizedILLaMA'))
optim_wrapper = dict(
    optimizer=dict(lr=4e-3),
    paramwise_cfg=dict(custom_keys=dict(step=dict(lr_mult=0.01, decay_mult=0.0))),
)
