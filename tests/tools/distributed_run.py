"""Run by torchrun in test_distributed.py: tools/train.py's steps on CPUs, over gloo.

tools/train.py itself leaves the start to mmengine, which needs a GPU for each process.
"""

import argparse
import os

import torch
import torch.distributed as dist

from illama_seg.apis import CfgOptions, build_trainer, load_config

parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('work_dir')
parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
args = parser.parse_args()
torch.set_num_threads(1)
dist.init_process_group('gloo')
cfg = load_config(args.config, args.cfg_options, args.work_dir, launcher='pytorch')
cfg.sync_bn = None  # SyncBatchNorm is for GPUs
cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
runner = build_trainer(cfg)
runner.train()
for name, weight in runner.model.named_parameters():
    both = [torch.empty_like(weight) for _ in range(dist.get_world_size())]
    dist.all_gather(both, weight.detach())
    assert torch.equal(*both), f'{name} differs between the processes'
print(f'rank {dist.get_rank()} of {dist.get_world_size()}: weights agree', flush=True)
dist.barrier()
# Without taking gloo down: seldom a process was aborted when the other had ended first.
os._exit(0)
