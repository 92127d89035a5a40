"""ImageNet-21K-P (Winter 2021) at 224x224, 10,450 classes; else as ImageNet-1K."""

_base_ = ['./imagenet_224.py']

train_dataloader = dict(
    dataset=dict(
        type='ImageNet21KPDataset',
        data_root='data/imagenet21k',
        data_prefix='imagenet21k_train',
    )
)
val_dataloader = dict(
    dataset=dict(
        type='ImageNet21KPDataset',
        data_root='data/imagenet21k',
        data_prefix='imagenet21k_val',
    )
)
test_dataloader = val_dataloader
