"""iLLaMA-T with 8-bit weights and activations: arXiv 2404.06773, Table 15.

Expected (the paper's figure): 72.4 top-1; 75.0 with 32 bits.
Memory: not measured. Batch 4096 by gradient accumulation.

The learning rate is Table 15's, the rest the recipe on ImageNet-1K. That of the step
sizes is a hundredth of it: the paper has none for them, and AdamW moves every parameter
by about its learning rate, whereas steps are about 0.01.

1 GPU:  python tools/train.py configs/quantization/illama_tiny_w8a8_in1k.py --amp
8 GPUs: tools/dist_train.sh configs/quantization/illama_tiny_w8a8_in1k.py 8 --amp
"""

_base_ = ['../pretrain/illama_tiny_in1k.py']

model = dict(backbone=dict(type='QuantizedILLaMA'))
optim_wrapper = dict(
    optimizer=dict(lr=3e-3),
    paramwise_cfg=dict(custom_keys=dict(step=dict(lr_mult=0.01, decay_mult=0.0))),
)
