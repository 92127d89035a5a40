"""UperNet on iLLaMA-L, ADE20K, its weights spread over the GPUs (FSDP).

The recipe of upernet_illama_large_ade20k.py; the paper has no figure for this size.
Losses and checkpoints equal that config's; either resumes from the other's checkpoints.
Memory: not measured. A parameter takes 16 bytes (weight, gradient, AdamW's two
moments), which the GPUs share. Each GPU also holds the weights of the layer in use.

8 GPUs: tools/dist_train.sh configs/upernet_illama_large_ade20k_fsdp.py 8
1 GPU:  python tools/train.py configs/upernet_illama_large_ade20k_fsdp.py
Another model: its own config with --cfg-options runner_type=ShardedRunner.
Test:   python tools/test.py configs/upernet_illama_large_ade20k.py CHECKPOINT --tta
"""

_base_ = ['upernet_illama_large_ade20k.py']

runner_type = 'ShardedRunner'
