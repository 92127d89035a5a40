"""A question to the strictly causal micro iLLaMA of CIFAR-10, 40 frames of CamVid.

python tools/train.py configs/queries/illama_micro_queries_camvid40_frozen.py

The backbone reads as it is; its queries and the head, 0.9 % of the parameters, are
trained. tools/checkpoints/question.py takes them out: a file of 30 kilobytes.
"""

_base_ = ['illama_micro_queries_camvid40_full.py']

model = dict(backbone=dict(frozen_stages=6))
