"""UperNet on the micro iLLaMA of CIFAR-10, 40 frames of CamVid: layer decay.

python tools/train.py configs/little_data/upernet_illama_micro_camvid40_layer_decay.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

The learning rate is 1e-3 in the decoder and falls by a quarter from block to block, to
1.3e-4 in the embeddings.
"""

_base_ = ['upernet_illama_micro_camvid40_full.py']

optim_wrapper = dict(
    constructor='LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=0.75)
)
