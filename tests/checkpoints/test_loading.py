import argparse
import dataclasses
import hashlib
import http.server
import json
import logging
import os
import pickle
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_state_dict, save_checkpoint, weights_to_cpu
from safetensors.torch import save_file
from timm.models._manipulate import adapt_input_conv
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import (
    RELEASED,
    all_weights,
    checkpoint,
    fetch_checkpoint,
    fingerprints,
    load_into_backbone,
    load_released,
    open_checkpoint,
    read_checkpoint,
)
from illama_seg.checkpoints.loading import adapt_channels

DATA = Path(__file__).parents[1] / 'data'
OFFICIAL = DATA / 'illama_micro_official.pth'
ROOT_LOGGER = 'illama_seg'


class Backbone(nn.Module):
    """The parameters of a micro iLLaMA, without its maths."""

    def __init__(
        self, dims=48, depth=3, hidden=256, grid=(4, 4), with_norm=False, channels=3
    ):
        super().__init__()
        self.grid_size = grid
        self.cls_position = 'last'
        self.patch_embed = nn.ModuleDict({'proj': nn.Conv2d(channels, dims, 8, 8)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + 1, dims))
        self.blocks = nn.ModuleList(self._block(dims, hidden) for _ in range(depth))
        if with_norm:
            self.norm = nn.RMSNorm(dims)

    @staticmethod
    def _block(dims, hidden):
        attn = {'qkv': nn.Linear(dims, 3 * dims), 'proj': nn.Linear(dims, dims)}
        mlp = {
            'fc1': nn.Linear(dims, hidden, False),
            'fc2': nn.Linear(hidden, dims, False),
            'fc3': nn.Linear(dims, hidden, False),
        }
        return nn.ModuleDict(
            {
                'norm1': nn.RMSNorm(dims),
                'attn': nn.ModuleDict(attn),
                'norm2': nn.RMSNorm(dims),
                'mlp': nn.ModuleDict(mlp),
            }
        )


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.fixture(scope='module')
def official():
    return torch.load(OFFICIAL, weights_only=False)['model']


def saved(content, path):
    torch.save(content, path)
    return path


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key


def test_the_released_file_loads_as_it_is(official):
    assert_same(load_released(OFFICIAL), official)
    assert isinstance(read_checkpoint(OFFICIAL)['args'], argparse.Namespace)


def test_every_parameter_of_the_backbone_gets_the_released_values(official):
    backbone = Backbone(with_norm=True)
    report = load_into_backbone(backbone, OFFICIAL)
    # The file mixes float64 and float32, the backbone is float32.
    expected = {k: v.float() for k, v in official.items() if 'head.' not in k}
    assert_same(backbone.state_dict(), expected)
    assert sorted(report.matched) == sorted(backbone.state_dict())
    assert report.ignored == ['head.weight', 'head.bias']
    assert not (report.missing or report.unexpected or report.resized)


@pytest.mark.parametrize(
    'form', ['bare', 'model', 'state_dict', 'module', 'backbone', 'both', 'safetensors']
)
def test_all_forms_of_a_checkpoint_give_the_same_tensors(form, official, tmp_path):
    path = tmp_path / 'x.pth'
    if form == 'safetensors':
        path = tmp_path / 'x.safetensors'
        save_file(dict(official), path)
    elif form == 'bare':
        saved(official, path)
    elif form in ('model', 'state_dict'):
        saved({form: official, 'epoch': 3}, path)
    else:
        prefix = {'module': 'module.', 'backbone': 'backbone.'}
        prefix = prefix.get(form, 'module.backbone.')
        state = OrderedDict((prefix + k, v) for k, v in official.items())
        saved({'meta': {}, 'state_dict': state}, path)
    assert_same(load_released(path), official)


def test_the_old_file_format_of_torch_loads(official, tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'model': official}, path, _use_new_zipfile_serialization=False)
    assert_same(load_released(path), official)


def test_heads_of_a_segmentor_are_ignored_and_counted(official, tmp_path):
    state = {f'backbone.{k}': v for k, v in official.items()}
    state |= {f'decode_head.{i}.weight': torch.ones(1) for i in range(20)}
    path = saved({'state_dict': state, 'ema_state_dict': {}}, tmp_path / 'x.pth')
    report = load_into_backbone(Backbone(), path)
    assert len(report.ignored) == 20 + 3
    assert 'ignored (23): decode_head.0.weight' in str(report)
    assert '... and 15 more' in str(report)


def test_loaded_tensors_survive_overwriting_the_file(official, tmp_path):
    path = saved(official, tmp_path / 'x.pth')
    weights = load_released(path)
    path.write_bytes(b'')
    assert_same(weights, official)


@pytest.mark.parametrize('name', ['x.pth', 'x.pt', 'x.bin', 'x', 'x.safetensors'])
@pytest.mark.parametrize('writer', ['torch', 'old torch', 'torch 4', 'pickle'])
@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    name, writer, official, tmp_path
):
    marker, path = tmp_path / 'marker', tmp_path / name
    content = {'model': official, 'args': Attack(marker)}
    if writer == 'pickle':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(
            content,
            path,
            pickle_protocol=4 if writer == 'torch 4' else 2,
            _use_new_zipfile_serialization=writer != 'old torch',
        )
    with pytest.raises(ValueError) as error:
        read_checkpoint(path)
    assert not marker.exists()
    assert str(path) in str(error.value)
    if name != 'x.safetensors':
        for text in (f'{os.system.__module__}.system', 'run any code', 'save_file'):
            assert text in str(error.value)
    if name == 'x.pth' and writer != 'pickle':
        torch.load(path, weights_only=False)
        assert marker.exists()  # the attack is a real one


@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_a_truncated_file_is_named(share, name, official, tmp_path):
    path = tmp_path / name
    if name == 'x.pth':
        saved(official, path)
    else:
        save_file(dict(official), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError, match=r'x\.(pth|safetensors) is truncated, or was not'
    ):
        read_checkpoint(path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_harmless_file_of_another_pickle_protocol_is_not_called_an_attack(
    official, tmp_path
):
    path = tmp_path / 'x.pth'
    content = {'model': dict(official), 'args': argparse.Namespace()}
    torch.save(content, path, pickle_protocol=4)
    with pytest.raises(ValueError, match='default pickle protocol'):
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_named(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_text('<html>not found</html>')
    with pytest.raises(ValueError, match=r'x\.pth is truncated, or was not'):
        read_checkpoint(path)
    with pytest.raises(ValueError, match=r'x\.pth holds a list'):
        read_checkpoint(saved([1], path))
    saved({'epoch': 1, 'state_dict': {'lr': 0.1}}, path)
    with pytest.raises(ValueError, match=r'x\.pth holds no weights.*epoch, state_dict'):
        load_released(path)


def test_a_missing_file_is_named_and_a_released_one_has_its_url(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        load_released(tmp_path / 'nothing.pth')
    name = 'illama-tiny-in1k-75.0.pth'
    with pytest.raises(FileNotFoundError, match=RELEASED[name].url):
        load_released(tmp_path / name)


def test_the_resized_positions_are_the_golden_ones(official):
    backbone = Backbone(grid=(6, 6))
    report = load_into_backbone(backbone, OFFICIAL)
    expected = np.load(DATA / 'illama_micro_expected.npz')['pos_embed_6x6']
    actual = backbone.pos_embed.detach()
    error = np.abs(actual.numpy() - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()
    assert torch.equal(actual[:, -1], official['pos_embed'][:, -1])
    assert report.resized == [('pos_embed', (1, 17, 48), (1, 37, 48))]
    assert 'pos_embed' in report.matched
    assert 'resized: pos_embed (1, 17, 48) -> (1, 37, 48)' in str(report)


def test_positions_of_no_square_grid_are_resized_from_the_grid_that_was_noted(
    tmp_path,
):
    arch = dict(embed_dims=48, num_layers=1, num_heads=2)
    options = dict(arch=arch, patch_size=8, out_indices=(0,))
    trained = ILLaMA(img_size=(32, 48), **options)
    nn.init.normal_(trained.pos_embed)
    runner_model = nn.ModuleDict({'backbone': trained})
    mmengine_file = tmp_path / 'iter_1.pth'
    save_checkpoint(
        {'state_dict': weights_to_cpu(get_state_dict(runner_model))}, str(mmengine_file)
    )
    bare_file = saved(trained.state_dict(), tmp_path / 'x.pth')
    for path in (mmengine_file, bare_file):
        for height, width in ((16, 40), (48, 32)):  # the second has as many patches
            backbone = ILLaMA(img_size=(height, width), **options)
            report = load_into_backbone(backbone, path)
            old, slot = trained.pos_embed[:, :-1], trained.pos_embed[:, -1:]
            image = old.transpose(1, 2).reshape(1, 48, 4, 6)
            new = nn.functional.interpolate(
                image, (height // 8, width // 8), mode='bicubic'
            )
            expected = torch.cat([new.flatten(2).transpose(1, 2), slot], 1)
            assert torch.allclose(backbone.pos_embed, expected, atol=1e-6)
            assert [key for key, *_ in report.resized] == ['pos_embed']


def test_positions_of_no_square_grid_without_a_note_are_not_resized(tmp_path):
    path = saved(Backbone(grid=(4, 6)).state_dict(), tmp_path / 'x.pth')
    report = load_into_backbone(Backbone(grid=(4, 6)), path)
    assert not report.resized
    with pytest.raises(
        ValueError, match=r'24 patch positions.* to the 16 of the model.*img_size'
    ):
        load_into_backbone(Backbone(), path)


@pytest.mark.parametrize('note', [(5, 5), 'x', 7, (2, 'x'), [4, 4]])
def test_a_grid_note_that_does_not_fit_is_overlooked(note, tmp_path):
    state = OrderedDict(Backbone().state_dict())
    state._metadata = OrderedDict({'': {'grid_size': note}})
    report = load_into_backbone(Backbone(grid=(6, 6)), saved(state, tmp_path / 'x.pth'))
    assert [key for key, *_ in report.resized] == ['pos_embed']


def test_a_checkpoint_of_another_size_is_refused_with_both_sizes_named(tmp_path):
    path = saved(Backbone(768, 12, 1).state_dict(), tmp_path / 'x.pth')
    tiny = Backbone(192, 12, 1, grid=(6, 6))
    with pytest.raises(ValueError) as error:
        load_into_backbone(tiny, path)
    for text in (
        str(path),
        'cls_token is (1, 1, 768) in the file and (1, 1, 192) in the model',
        'looks like iLLaMA-Base (768 wide, 12 blocks)',
        'the model is iLLaMA-Tiny (192 wide, 12 blocks)',
        'model.backbone.arch',
        'init_cfg=None',
    ):
        assert text in str(error.value)
    assert not tiny.cls_token.any()


def test_an_ordinary_vit_is_told_apart(tmp_path):
    state = Backbone(hidden=64).state_dict()
    state = {k: v for k, v in state.items() if 'fc3' not in k}
    path = saved(state, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='an ordinary ViT'):
        load_into_backbone(Backbone(), path)


def test_a_file_that_matches_no_key_stops_the_run(tmp_path):
    path = saved({'layer1.conv.weight': torch.ones(1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError) as error:
        load_into_backbone(Backbone(), path)
    for text in (str(path), 'found: layer1.conv.weight', 'expected: cls_token'):
        assert text in str(error.value)


def test_missing_and_unknown_keys_are_reported_and_warned_of(
    official, tmp_path, caplog
):
    state = {k: v for k, v in official.items() if k != 'blocks.1.norm1.weight'}
    path = saved(state | {'extra': torch.ones(1)}, tmp_path / 'x.pth')
    with caplog.at_level(logging.INFO, ROOT_LOGGER):
        report = load_into_backbone(Backbone(), path)
    assert report.missing == ['blocks.1.norm1.weight']
    assert report.unexpected == ['extra']
    assert report.ignored == ['norm.weight', 'head.weight', 'head.bias']
    assert [record.levelname for record in caplog.records] == [
        'INFO',
        'WARNING',
        'WARNING',
    ]
    assert str(report) in caplog.text
    assert f'{path}: loaded 30 of 31 backbone keys' in str(report)


def test_the_report_goes_to_the_logger_that_is_given(caplog):
    with caplog.at_level(logging.INFO, 'mine'):
        load_into_backbone(Backbone(), OFFICIAL, logging.getLogger('mine'))
    assert [record.name for record in caplog.records] == ['mine']


def test_blocks_that_are_not_built_are_ignored():
    report = load_into_backbone(Backbone(depth=2), OFFICIAL)
    assert not report.unexpected
    assert 'blocks.2.mlp.fc3.weight' in report.ignored


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_files_are_cast_also_when_resized(dtype, official, tmp_path):
    state = {k: v.to(dtype) for k, v in official.items()}
    path = saved(state, tmp_path / 'x.pth')
    backbone = Backbone(grid=(6, 6))
    load_into_backbone(backbone, path)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    key = 'blocks.0.attn.qkv.weight'
    assert torch.equal(backbone.state_dict()[key], state[key].float())


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone(dims=4, depth=1, hidden=4)

    def forward(self, mode='loss', **kwargs):
        return dict(loss=sum(p.sum() for p in self.parameters()))


@pytest.mark.filterwarnings('ignore')
def test_a_checkpoint_of_mmengine_is_read_without_its_objects(tmp_path):
    runner = Runner(
        Toy(),
        str(tmp_path),
        train_dataloader=dict(
            dataset=[{}],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=lambda batch: {},
        ),
        train_cfg=dict(by_epoch=False, max_iters=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='LinearLR'),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)
        ),
        custom_hooks=[dict(type='EMAHook')],
        experiment_name='test_a_checkpoint_of_mmengine',
    )
    runner.train()
    path = tmp_path / 'iter_1.pth'
    statistics = dict(HistoryBuffer._statistics_methods)
    # Allowing numpy's own, as many do, must not mix with the stand-ins.
    theirs = [np.ndarray, np.dtype, np._core.multiarray._reconstruct, HistoryBuffer]
    with torch.serialization.safe_globals(theirs):
        before = set(torch.serialization.get_safe_globals())
        checkpoint = read_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == before
    curve = checkpoint['message_hub']['log_scalars']['train/loss']
    for kind, expected in zip(
        ('log', 'count'), runner.message_hub.get_scalar('train/loss').data, strict=True
    ):
        found = curve[f'{kind}_history'].numpy()
        np.testing.assert_array_equal(found, expected, strict=True)
    assert curve['max_length'] == 1000000
    assert checkpoint['meta']['iter'] == 1
    assert checkpoint['optimizer']['state']
    assert statistics == HistoryBuffer._statistics_methods
    report = load_into_backbone(Backbone(dims=4, depth=1, hidden=4), path)
    assert not (report.missing or report.unexpected)
    whole = torch.load(path, weights_only=False)['state_dict']
    assert_same(
        load_released(path), {k.removeprefix('backbone.'): v for k, v in whole.items()}
    )


def doubled(kind):
    """Forty containers that hold 2^40 ones."""
    value = kind([1])
    for _ in range(40):
        value = kind([value, value])
    return value


def holding_itself(kind):
    value = {} if kind is dict else []
    value.update(value=value) if kind is dict else value.append((value,))
    return value


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (doubled(list), 'a part of it stands in it more than'),
        (doubled(tuple), 'a part of it stands in it more than'),
        (holding_itself(dict), 'a part of it holds itself'),
        (holding_itself(list), 'a part of it holds itself'),
        (torch.zeros(1).expand(10**6, 10**8), r'\(1000000, 100000000\) .* and has 4'),
    ],
    ids=['lists', 'tuples', 'dict in itself', 'list in itself', 'expanded'],
)
def test_a_small_file_that_would_take_for_ever_is_refused(value, text, tmp_path):
    path = saved({'model': {'w': torch.zeros(1)}, 'meta': value}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=rf'x\.pth was refused: .*{text}'):
        read_checkpoint(path)


def test_what_stands_twice_in_a_checkpoint_is_one_thing_afterwards(tmp_path):
    tensor, value = torch.arange(6.0), [np.arange(3)]
    content = {'a': value, 'b': [value, tensor, tensor[::2], tensor[:0].expand(9, 0)]}
    found = read_checkpoint(saved(content, tmp_path / 'x.pth'))
    assert found['a'] is found['b'][0]
    assert torch.equal(found['a'][0], torch.arange(3))
    assert torch.equal(found['b'][2], tensor[::2])


@pytest.mark.parametrize(
    'value',
    [
        np.float64(0.1),
        np.float32(0.1),
        np.int64(-7),
        np.bool_(True),
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 2), np.uint8),
        np.array(3.5),
        np.array([[True, False]]),
    ],
    ids=repr,
)
def test_numpys_values_come_back_as_numbers_and_tensors(value, tmp_path):
    path = saved({'a': [value, (value, 'text')]}, tmp_path / 'x.pth')
    found, (again, text) = read_checkpoint(path)['a']
    assert text == 'text'
    if isinstance(value, np.generic):
        assert found == again == value.item() and type(found) is type(value.item())
    else:
        np.testing.assert_array_equal(found.numpy(), value, strict=True)


@pytest.mark.parametrize('value', [np.array(['a']), np.array([1], '>i4')], ids=repr)
def test_an_array_of_another_kind_is_only_stood_in_for(value, tmp_path):
    path = saved({'a': value, 'b': torch.ones(1)}, tmp_path / 'x.pth')
    assert not isinstance(read_checkpoint(path)['a'], (torch.Tensor, np.ndarray))


def test_a_structure_that_holds_itself_is_refused(tmp_path):
    content = {'b': torch.ones(1)}
    content['a'] = [content]
    with pytest.raises(ValueError, match=r'x\.pth'):
        read_checkpoint(saved(content, tmp_path / 'x.pth'))


def test_a_zip_that_unpacks_to_more_than_it_is_is_refused(official, tmp_path):
    path = saved(official, tmp_path / 'x.pth')
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as file:
        file.writestr('x/data/zeros', bytes(4 << 20))
    with pytest.raises(ValueError, match=r'x\.pth was refused: it unpacks to 5,'):
        read_checkpoint(path)


def test_the_eight_released_files_are_listed_with_the_accuracy_in_their_names():
    assert len(RELEASED) == 8
    for name, file in RELEASED.items():
        assert file.url.endswith(f'/iLLaMA/resolve/main/{name}')
        assert name.endswith(f'-{file.top1}.pth')
        assert name.startswith(f'illama-{file.arch}-')
        assert ('-384-' in name) == (file.img_size == 384)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    return tmp_path / 'hub' / 'checkpoints'


@pytest.fixture
def server():
    """Serves the official file under any name, 'half' of it, an attack, or 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            content = OFFICIAL.read_bytes()
            self.send_response(404 if 'absent' in self.path else 200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            half = 'half' in self.path
            self.wfile.write(content[: len(content) // 2] if half else content)

        def log_message(self, *args):
            pass

    requests = []
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/', requests
    server.shutdown()
    server.server_close()


def test_a_local_path_passes_through():
    assert fetch_checkpoint('~/x.pth') == Path.home() / 'x.pth'
    assert fetch_checkpoint(OFFICIAL) == OFFICIAL


def test_a_url_is_downloaded_once_and_its_hash_checked(cache, server, official):
    url, requests = server
    digest = hashlib.sha256(OFFICIAL.read_bytes()).hexdigest()
    name = f'micro-{digest[:8]}.pth'
    assert_same(load_released(f'{url}{name}?download=true'), official)
    assert fetch_checkpoint(url + name) == cache / name
    assert len(requests) == 1
    assert [path.name for path in cache.glob('[!.]*')] == [name]


@pytest.mark.parametrize('name', ['illama-tiny-in1k-75.0.pth', 'vit-20220809.pth'])
def test_a_figure_or_a_date_in_a_name_is_no_hash(name, cache, server):
    assert fetch_checkpoint(server[0] + name).is_file()


@pytest.mark.parametrize(
    ('name', 'error', 'text'),
    [
        ('x-0123abcd.pth', ValueError, 'expected 0123abcd; nothing was kept'),
        ('half.pth', ConnectionError, 'interrupted'),
        ('absent.pth', ConnectionError, '404'),
    ],
)
def test_nothing_of_a_bad_download_is_kept(name, error, text, cache, server):
    with pytest.raises(error, match=text) as caught:
        fetch_checkpoint(server[0] + name)
    assert server[0] + name in str(caught.value)
    assert not list(cache.rglob('[!.]*.*'))


def test_without_a_network_the_error_says_what_to_do(cache):
    with pytest.raises(ConnectionError) as error:
        load_released('http://127.0.0.1:9/x.pth')
    (folder,) = cache.iterdir()
    for text in (
        'http://127.0.0.1:9/x.pth',
        str(folder / 'x.pth'),
        'give the path of a local file',
    ):
        assert text in str(error.value)
    assert not list(folder.glob('[!.]*'))
    (folder / 'x.pth').write_bytes(OFFICIAL.read_bytes())
    assert load_released('http://127.0.0.1:9/x.pth')


def test_a_download_that_does_not_fit_is_named_where_it_is_kept(
    golden_checkpoint, cache
):
    cache.mkdir(parents=True)
    kept = cache / 'illama-tiny-in1k-75.0.pth'
    kept.write_bytes(golden_checkpoint.read_bytes())
    with pytest.raises(ValueError) as error:
        load_into_backbone(Backbone(dims=24), RELEASED[kept.name].url)
    assert f'kept in {kept}; delete it to download it again' in str(error.value)


def test_a_checkpoint_is_read_once_while_it_is_held(tmp_path, official, monkeypatch):
    path, reads = saved(official, tmp_path / 'x.pth'), []
    real = checkpoint.read_checkpoint
    monkeypatch.setattr(
        checkpoint, 'read_checkpoint', lambda p, mmap: reads.append(p) or real(p)
    )
    held = open_checkpoint(path)
    assert open_checkpoint(path) is held and open_checkpoint(held) is held
    load_into_backbone(Backbone(), path)
    assert_same(load_released(held), official)
    assert reads == [path]
    saved({'other': torch.ones(1)}, path)  # another file under its name
    assert list(open_checkpoint(path).weights) == ['other'] and len(reads) == 2
    del held
    open_checkpoint(path)
    assert len(reads) == 3


# Trust on first use

TINY = 'illama-tiny-in1k-75.0.pth'


@pytest.fixture
def authors(server, monkeypatch):
    """The server is where the authors released their files."""
    released = dataclasses.replace(RELEASED[TINY], url=server[0] + TINY)
    monkeypatch.setitem(RELEASED, TINY, released)
    monkeypatch.setattr(fingerprints, '_checked', {})


@pytest.fixture
def trusted(cache, server, authors):
    """The record of a released file that came once; a new process from then on."""
    fetch_checkpoint(server[0] + TINY)
    fingerprints._checked.clear()
    return cache / fingerprints.TRUSTED


def test_the_checksum_of_a_released_file_is_noted_when_it_first_comes(
    cache, server, authors, caplog
):
    with caplog.at_level(logging.INFO, ROOT_LOGGER):
        fetch_checkpoint(server[0] + TINY)
    digest = hashlib.sha256(OFFICIAL.read_bytes()).hexdigest()
    assert json.loads((cache / fingerprints.TRUSTED).read_text()) == {TINY: digest}
    for text in ('this first file is trusted', digest, fingerprints.TRUSTED):
        assert text in caplog.text
    fetch_checkpoint(server[0] + 'other.pth')
    assert len(json.loads((cache / fingerprints.TRUSTED).read_text())) == 1


def test_a_released_file_that_changed_is_refused_with_both_checksums(
    trusted, server, official
):
    file = trusted.with_name(TINY)
    fetch_checkpoint(server[0] + TINY)  # as it was
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    saved({'model': official, 'more': 1}, file)
    new = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(ValueError) as error:
        fetch_checkpoint(server[0] + TINY)
    for text in (str(file), old, new, 'Delete it to download', 'delete its line there'):
        assert text in str(error.value)
    file.unlink()
    assert fetch_checkpoint(server[0] + TINY) == file


def test_another_file_under_a_released_name_is_not_kept(trusted, server):
    trusted.with_name(TINY).unlink()
    trusted.write_text(json.dumps({TINY: '0' * 64}))
    with pytest.raises(ValueError, match=rf'the download of {TINY}.*\n.*\n0000.*kept'):
        fetch_checkpoint(server[0] + TINY)
    assert not trusted.with_name(TINY).exists()
    trusted.write_text('{}')  # the line was deleted
    assert fetch_checkpoint(server[0] + TINY).is_file()


@pytest.mark.parametrize('content', ['nonsense', '[]'])
def test_a_damaged_record_is_named(content, trusted, server):
    trusted.write_text(content)
    with pytest.raises(
        ValueError, match=rf'{fingerprints.TRUSTED} cannot be read.*delete it'
    ):
        fetch_checkpoint(server[0] + TINY)


def test_a_file_is_hashed_once_in_a_process(trusted, server, monkeypatch):
    hashed = []
    real = fingerprints.digest_of
    monkeypatch.setattr(
        fingerprints, 'digest_of', lambda p, kind: hashed.append(p) or real(p, kind)
    )
    for _ in range(3):
        fetch_checkpoint(server[0] + TINY)
    assert len(hashed) == 1


def test_a_file_of_a_released_name_from_elsewhere_is_never_taken_for_it(
    cache, server, authors, official
):
    elsewhere = fetch_checkpoint(f'{server[0]}evil/{TINY}')
    assert not (cache / fingerprints.TRUSTED).exists()
    saved({'model': official, 'more': 1}, elsewhere)  # it is another file
    kept = fetch_checkpoint(f'{server[0]}{TINY}?download=true')
    assert kept == cache / TINY and kept.read_bytes() == OFFICIAL.read_bytes()
    digest = hashlib.sha256(OFFICIAL.read_bytes()).hexdigest()
    assert json.loads((cache / fingerprints.TRUSTED).read_text()) == {TINY: digest}


def test_files_of_one_name_from_two_places_are_two(cache, server):
    first, other = (fetch_checkpoint(f'{server[0]}{k}/x.pth') for k in 'ab')
    assert first != other and first.name == other.name == 'x.pth'
    assert fetch_checkpoint(f'{server[0]}a/x.pth') == first
    assert len(server[1]) == 2


# Other numbers of channels


@pytest.mark.parametrize('channels', [1, 2, 4, 5, 7])
def test_colours_go_into_other_channels_as_timm_puts_them(channels, official, tmp_path):
    backbone = Backbone(channels=channels)
    report = load_into_backbone(backbone, OFFICIAL)
    weight = official['patch_embed.proj.weight'].float()
    expected = adapt_input_conv(channels, weight)
    torch.testing.assert_close(backbone.patch_embed['proj'].weight.data, expected)
    key, old, new = report.adapted[0]
    assert (key, old[1], new[1]) == ('patch_embed.proj.weight', 3, channels)
    assert key in report.matched and not report.mismatched
    assert f"RGB's {key} for {channels} channels" in report.summary
    assert 'adapted: patch_embed.proj.weight' in str(report)


@pytest.mark.parametrize('channels', [1, 6, 9])
def test_equal_channels_give_what_a_grey_picture_gives(channels, official):
    weight = official['patch_embed.proj.weight'].float()
    grey = torch.rand(2, 1, 8, 8)
    expected = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight, stride=8)
    adapted = adapt_channels(weight, channels)
    found = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), adapted, stride=8)
    torch.testing.assert_close(found, expected)


def test_the_log_says_what_became_of_the_colours(caplog):
    with caplog.at_level(logging.WARNING, ROOT_LOGGER):
        load_into_backbone(Backbone(channels=4), OFFICIAL)
        load_into_backbone(Backbone(channels=1), OFFICIAL)
    assert (
        'trained on 3 channels and is adapted to 4: repeated, times 3/4' in caplog.text
    )
    assert 'trained on 3 channels and is adapted to 1: their sum' in caplog.text


def test_weights_of_four_channels_fit_no_other_number(tmp_path):
    path = saved(Backbone(channels=4).state_dict(), tmp_path / 'four.pth')
    assert load_into_backbone(Backbone(channels=4), path).adapted == []
    with pytest.raises(ValueError, match='in_channels'):
        load_into_backbone(Backbone(channels=3), path)


def test_a_checkpoint_of_another_soft_mask_is_warned_of(tmp_path, caplog):
    """The mask of the training's config, wherever a schedule was when it was saved."""

    def model(**options):
        whole = nn.Module()
        arch = dict(embed_dims=8, num_layers=2, num_heads=2)
        whole.backbone = ILLaMA(arch, 32, out_indices=-1, **options)
        return whole

    opened = model(soft_mask_rate=1.0, soft_mask_blocks=1)
    opened.backbone.set_soft_mask_rate(0.25)
    torch.save({'state_dict': opened.state_dict()}, tmp_path / 'opened.pth')
    checkpoint = open_checkpoint(tmp_path / 'opened.pth')
    assert not all_weights(model(soft_mask_rate=1.0, soft_mask_blocks=1), checkpoint)[1]
    assert not caplog.records
    assert not all_weights(model(), checkpoint)[1]
    (record,) = caplog.records
    assert 'soft_mask_rate 1.0 (now 0.0), closed blocks 1 (now 0)' in record.message
    assert str(tmp_path / 'opened.pth') in record.message
