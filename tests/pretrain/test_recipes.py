"""The recipes of arXiv 2404.06773, Tables 13, 14 and 16, figure by figure."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from timm.data.random_erasing import RandomErasing
from tiny_run import start_fresh
from torch import nn

from illama_seg.checkpoints import RELEASED

CONFIGS = Path(__file__).parents[2] / 'configs'


def recipe(size, **facts):
    return dict(size=size, eta_min=1e-6, smoothing=0.1, erasing=0.25, **facts)


def in1k(size, **facts):
    common = dict(lr=4e-3, decay=0.05, batch=4096, epochs=300, classes=1000)
    return recipe(size, **common, **facts)


def in21k(size):
    return recipe(
        size, lr=1e-3, decay=0.01, batch=4096, epochs=90, classes=10450, warmup=5,
        drop_path=0.1, mixup=0.8, cutmix=1.0, mask=('constant', 30),
    )  # fmt: skip


def finetuned(size, lr, drop_path, img_size=224):
    return recipe(
        size, lr=lr, decay=1e-8, batch=512, epochs=30, classes=1000, warmup=0,
        drop_path=drop_path, mixup=0, cutmix=0, mask=None, img_size=img_size,
    )  # fmt: skip


def cifar(classes, mask, size='tiny'):
    return recipe(
        size, lr=2e-3, decay=0.05, batch=1024, epochs=300, classes=classes, warmup=50,
        drop_path=0, mixup=0.1, cutmix=0.1, mask=mask,
    )  # fmt: skip


RECIPES = {
    'pretrain/illama_tiny_in1k': in1k(
        'tiny', warmup=5, drop_path=0, mixup=0.1, cutmix=0.1, mask=('constant', 50)
    ),
    'pretrain/illama_small_in1k': in1k(
        'small', warmup=5, drop_path=0.1, mixup=0.5, cutmix=0.5, mask=('linear', 50)
    ),
    'pretrain/illama_base_in1k': in1k(
        'base', warmup=50, drop_path=0.4, mixup=0.95, cutmix=1.0, mask=('linear', 25)
    ),
    'pretrain/illama_base_in21k': in21k('base'),
    'pretrain/illama_large_in21k': in21k('large'),
    'pretrain/illama_base_in1k_384': finetuned('base', 8e-5, 0.8, 384),
    'pretrain/illama_base_in21k_in1k_224': finetuned('base', 8e-5, 0.2),
    'pretrain/illama_large_in21k_in1k_224': finetuned('large', 6e-5, 0.3),
    'pretrain/illama_base_in21k_in1k_384': finetuned('base', 1.1e-4, 0.2, 384),
    'pretrain/illama_large_in21k_in1k_384': finetuned('large', 3.5e-5, 0.3, 384),
    'transfer/illama_tiny_cifar10': cifar(10, ('linear', 25)),
    'transfer/illama_tiny_cifar100': cifar(100, ('linear', 50)),
    'transfer/vit_tiny_cifar10': cifar(10, None, 'vit_tiny'),
    'transfer/vit_tiny_cifar100': cifar(100, None, 'vit_tiny'),
}
every_recipe = pytest.mark.parametrize(('name', 'facts'), RECIPES.items(), ids=RECIPES)
SMALL = [
    'pretrain/illama_micro_digits',
    'pretrain/illama_micro_cifar10',
    'pretrain/illama_micro_scenes',
    'pretrain/visionllama_micro_cifar10',
    'pretrain/vit_micro_cifar10',
]
every_config = pytest.mark.parametrize('name', [*RECIPES, *SMALL])


def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def build(config):
    """The classifier on 'meta', without memory and pretrained weights."""
    config.model.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        return MODELS.build(config.model)


# The schedules, through the real Runner

UPDATES, ACCUMULATE = 2, 2  # of an epoch, of an update


class Recorder(BaseModel):
    """Costs nothing; notes learning rate and soft mask rate of every iteration."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.rate, self.seen = 0.0, []
        self.soft_mask_rate = self.soft_mask_norm = 0.0  # of the config

    def set_soft_mask_rate(self, rate):
        self.rate = rate

    def forward(self):
        raise NotImplementedError

    def train_step(self, data, optim_wrapper):
        self.seen.append((optim_wrapper.get_lr()['lr'][0], self.rate))
        optim_wrapper.update_params(self.weight.sum())
        return {}


class Numbers:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


def walked(config, work_dir):
    """(epochs, iterations, 2): what the model sees over the whole training."""
    start_fresh()
    MODELS.register_module(module=Recorder, force=True)
    DATASETS.register_module(module=Numbers, force=True)
    count = UPDATES * ACCUMULATE + 1  # one image too many for whole updates
    config.merge_from_dict(dict(effective_batch=ACCUMULATE, log_level='ERROR'))
    config.model = dict(type='Recorder')
    config.train_dataloader.update(
        batch_size=1, num_workers=0, persistent_workers=False
    )
    config.train_dataloader.dataset = dict(type='Numbers', count=count)
    config.train_dataloader.collate_fn = dict(type='default_collate')
    for split in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            config[f'{split}_{part}'] = None
    del config.default_hooks['rehearsal']  # the model would see its images too
    for hook in ('checkpoint', 'logger', 'timer'):
        config.default_hooks[hook] = None
    config.optim_wrapper.paramwise_cfg = None
    config.work_dir = str(work_dir)
    runner = Runner.from_cfg(config)
    runner.train()
    seen = np.array(runner.model.seen)
    return seen.reshape(-1, UPDATES * ACCUMULATE, 2)


def closed_forms(facts):
    """Learning rate and soft mask rate of every update."""
    warmup, total = facts['warmup'] * UPDATES, facts['epochs'] * UPDATES
    lr, low, rest = facts['lr'], facts['eta_min'], total - warmup
    cosine = [
        low + 0.5 * (lr - low) * (1 + math.cos(math.pi * i / rest)) for i in range(rest)
    ]
    mode, cutoff = facts['mask'] or ('constant', 0)
    cutoff *= UPDATES
    mask = np.ones(cutoff) if mode == 'constant' else np.linspace(1, 0, cutoff)
    rates = np.concatenate([np.linspace(0, lr, warmup), cosine])
    return rates, np.concatenate([mask, np.zeros(total - cutoff)])


@every_recipe
def test_every_epochs_mean_learning_rate_and_soft_mask_rate_are_the_papers(
    name, facts, tmp_path
):
    seen = walked(load(name), tmp_path)
    assert len(seen) == facts['epochs']
    for column, expected in enumerate(closed_forms(facts)):
        means = expected.reshape(facts['epochs'], UPDATES).mean(1)
        found = seen[:, :, column].mean(1)
        np.testing.assert_allclose(found, means, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            seen[:, ::ACCUMULATE, column].ravel(), expected, rtol=1e-9, atol=1e-12
        )


# What a recipe is made of


@every_recipe
def test_optimiser_batch_and_augmentation_are_those_of_the_table(name, facts):
    config = load(name)
    optimizer = config.optim_wrapper.optimizer
    assert optimizer.type == 'AdamW' and tuple(optimizer.betas) == (0.9, 0.999)
    assert (optimizer.lr, optimizer.weight_decay, optimizer.eps) == (
        facts['lr'],
        facts['decay'],
        1e-8,
    )
    assert config.effective_batch == facts['batch']
    assert config.train_cfg.max_epochs == facts['epochs']
    preprocessor, head = config.model.data_preprocessor, config.model.head
    assert preprocessor.get('mixup', 0) == facts['mixup']
    assert preprocessor.get('cutmix', 0) == facts['cutmix']
    assert head.label_smoothing == facts['smoothing']
    assert head.num_classes == facts['classes']
    hooks = config.get('custom_hooks', [])
    masks = [(hook.mode, hook.cutoff) for hook in hooks if hook.type == 'SoftMaskHook']
    assert masks == ([facts['mask']] if facts['mask'] else [])
    erase = build(config).data_preprocessor._erase
    assert isinstance(erase, RandomErasing) and erase.per_pixel
    assert erase.probability == facts['erasing']


@every_recipe
def test_images_are_cropped_augmented_and_resized_as_the_table_says(name, facts):
    config, size = load(name), facts.get('img_size', 224)
    _, train, _ = config.train_dataloader.dataset.pipeline
    assert train == dict(
        type='ClsTransform',
        input_size=size,
        is_training=True,
        color_jitter=0.4,
        auto_augment='rand-m9-mstd0.5-inc1',
        interpolation='bicubic',
    )
    for loader in (config.val_dataloader, config.test_dataloader):
        _, test, _ = loader.dataset.pipeline
        warps = size == 384 or 'cifar' in name
        options = dict(crop_pct=1.0, crop_mode='squash') if warps else {}
        assert test == dict(
            dict(type='ClsTransform', input_size=size, interpolation='bicubic'),
            **{'crop_pct': 0.875} | options,
        )
        assert loader.dataset.test_mode


@every_recipe
def test_stochastic_depth_grows_linearly_to_the_rate_of_the_table(name, facts):
    rates = [block.drop_path.rate for block in build(load(name)).backbone.blocks]
    expected = np.linspace(0, facts['drop_path'], len(rates))
    np.testing.assert_allclose(rates, expected, atol=1e-6)


@every_recipe
def test_one_dimensional_parameters_and_embeddings_have_no_weight_decay(name, facts):
    config = load(name)
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    found = {
        id(parameter): (group['weight_decay'], group['lr'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    for key, parameter in model.named_parameters():
        free = parameter.ndim == 1 or key in (
            'backbone.pos_embed',
            'backbone.cls_token',
        )
        decay = 0 if free else facts['decay']
        assert found[id(parameter)] == (decay, facts['lr']), key


PARAMETERS = {
    ('tiny', 224): 5701096,
    ('vit_tiny', 224): 5717416,  # timm's deit_tiny_patch16_224
    ('small', 224): 22018024,
    ('base', 224): 86502376,
    ('large', 224): 310445032,
    ('base', 384): 86794216,
    ('large', 384): 310834152,
}


@every_recipe
def test_the_model_has_as_many_parameters_as_in_the_authors_logs(name, facts):
    size = facts['size'], facts.get('img_size', 224)
    config = load(name)
    config.model.head.num_classes = 1000
    count = sum(parameter.numel() for parameter in build(config).parameters())
    assert count == PARAMETERS[size]


def test_weights_to_start_from_are_those_of_the_name():
    sources = {
        name: Path(load(name).model.init_cfg.checkpoint)
        for name in RECIPES
        if load(name).model.get('init_cfg')
    }
    for name in [name for name in sources if 'vit' in name]:
        assert sources.pop(name).name == 'deit_tiny_patch16_224-a1311bcf.pth'
    released = {name: p.name for name, p in sources.items() if p.name in RELEASED}
    assert released == {
        'pretrain/illama_base_in1k_384': 'illama-base-in1k-81.6.pth',
        'transfer/illama_tiny_cifar10': 'illama-tiny-in1k-75.0.pth',
        'transfer/illama_tiny_cifar100': 'illama-tiny-in1k-75.0.pth',
    }
    for name in set(sources) - set(released):
        size = name.split('_')[1]
        expected = f'work_dirs/illama_{size}_in21k/epoch_90.pth'
        assert str(sources[name]) == expected
    assert len(sources) == 7


# Form


def test_every_config_is_a_recipe_tested_here():
    files = [*CONFIGS.glob('pretrain/*.py'), *CONFIGS.glob('transfer/*.py')]
    names = {path.relative_to(CONFIGS).with_suffix('').as_posix() for path in files}
    assert names == {*RECIPES, *SMALL}


@every_config
def test_bases_are_our_own_and_a_peers_is_the_illama_beside_it(name):
    path = CONFIGS / f'{name}.py'
    bases = bases_of(path)
    kind, _, rest = path.name.partition('_')
    if kind != 'illama':
        twin = path.with_name(f'illama_{rest}')
        assert [path.parent / base for base in bases] == [twin]
        bases = bases_of(twin)
    for base in bases:
        source = (path.parent / base).resolve()
        assert source.is_relative_to(CONFIGS / '_base_')
        # Another size or data set may inherit from ImageNet's, and no deeper.
        assert bases_of(source) in ([], ['./imagenet_224.py'])


def bases_of(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            return ast.literal_eval(node.value)
    return []


@every_config
def test_docstring_gives_the_command_and_the_paper_of_a_recipe(name):
    text = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text()))
    assert f'tools/train.py configs/{name}.py' in text
    if name in RECIPES:
        assert 'Table 1' in text and 'top-1' in text and 'Memory: not measured' in text
        assert f'Batch {RECIPES[name]["batch"]} by gradient accumulation' in text
        assert f'tools/dist_train.sh configs/{name}.py 8' in text
