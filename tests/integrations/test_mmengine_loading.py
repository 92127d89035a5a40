import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.apis import MMSegInferencer
from torch import nn

from illama_seg.checkpoints import read_checkpoint
from illama_seg.integrations import mmengine_loading


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """URLs that were asked for; each gives the same weights."""
    asked, path = [], tmp_path / 'x.pth'
    torch.save({'state_dict': {'backbone.weight': torch.ones(1)}}, path)

    def fetch(url):
        asked.append(url)
        return path

    monkeypatch.setattr(mmengine_loading, 'fetch_checkpoint', fetch)
    return asked


def test_no_reader_of_mmengine_is_left():
    loaders = CheckpointLoader._schemes
    assert {'', 'http://', 'https://', 'pavi://', 'mmcls://'} <= loaders.keys()
    for prefix, loader in loaders.items():
        assert loader.__module__ == 'illama_seg.integrations.mmengine_loading', prefix
        assert loader.__name__.startswith('load_from_')


@pytest.mark.parametrize('scheme', ['torchvision', 'modelzoo', 'openmmlab', 'mmcls'])
def test_a_models_name_is_the_url_that_mmengine_knows(scheme, fetched, monkeypatch):
    models = {'mine': 'https://example.org/mine.pth'}
    for kind in ('torchvision', 'external', 'mmcls'):
        name = f'get_{kind}_models'
        monkeypatch.setattr(mmengine_checkpoint, name, lambda: dict(models))
    found = CheckpointLoader.load_checkpoint(f'{scheme}://mine', 'cpu')
    assert fetched == ['https://example.org/mine.pth']
    expected = 'weight' if scheme == 'mmcls' else 'backbone.weight'
    assert list(found['state_dict']) == [expected]
    with pytest.raises(ValueError, match=rf'{scheme}://other: mmengine knows no model'):
        CheckpointLoader.load_checkpoint(f'{scheme}://other')


def test_an_old_name_of_openmmlab_goes_on(fetched, monkeypatch):
    old, new = next(iter(mmengine_checkpoint.get_deprecated_model_names().items()))
    CheckpointLoader.load_checkpoint(f'open-mmlab://{old}')
    assert fetched == [mmengine_checkpoint.get_external_models()[new]]


def test_an_object_store_is_read_by_its_client(fetched, monkeypatch, tmp_path):
    class Client:
        def get(self, name):
            return (tmp_path / 'x.pth').read_bytes()

    monkeypatch.setattr(mmengine_loading, 'get_file_backend', lambda *a, **k: Client())
    found = CheckpointLoader.load_checkpoint('s3://bucket/x.pth')
    assert found['state_dict']['backbone.weight'] == 1
    with pytest.raises(ValueError, match='pavi://x: download the file'):
        CheckpointLoader.load_checkpoint('pavi://x')


def test_weights_go_where_they_are_asked_to(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / 'x.pth')
    for device in ('cpu', 'meta'):
        found = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), device)
        assert found['weight'].device.type == device


def test_the_config_in_a_checkpoint_is_kept_and_not_run(run, tmp_path):
    path, marker = str(run.checkpoint), tmp_path / 'ran'
    text = read_checkpoint(path)['meta']['cfg']
    kept = CheckpointLoader.load_checkpoint(path)
    assert 'cfg' not in kept['message_hub']['runtime_info']
    _, *rest = kept['meta']['cfg'].splitlines()
    assert [line.removeprefix('# ') for line in rest] == text.splitlines()
    torch.save(kept, tmp_path / 'again.pth')
    again = CheckpointLoader.load_checkpoint(str(tmp_path / 'again.pth'))
    assert again['meta']['cfg'] == kept['meta']['cfg']
    for hostile in (
        f'open({str(marker)!r}, "w")',
        f'a = 1\ropen({str(marker)!r}, "w")',
        f'a = 1\x0copen({str(marker)!r}, "w")',
        f'"""\n"""; open({str(marker)!r}, "w")',
        f'_base_ = {str(tmp_path / "base.py")!r}',
    ):
        (tmp_path / 'base.py').write_text(f'open({str(marker)!r}, "w")')
        safe = mmengine_loading._commented_out(hostile, path)
        with pytest.raises(ValueError, match='is a program, and is not run'):
            Config.fromstring(safe, '.py')
        assert not marker.exists()


def test_the_inferencer_wants_a_config(run):
    with pytest.raises(ValueError) as error:
        MMSegInferencer(model=None, weights=str(run.checkpoint), device='cpu')
    assert str(run.checkpoint) in str(error.value)
    assert 'MMSegInferencer(model=CONFIG, weights=FILE)' in str(error.value)


CURVE = dict(log_history=torch.ones(3), count_history=torch.ones(3), max_length=1000000)


@pytest.mark.parametrize(
    'change',
    [
        dict(log_history=1),
        dict(log_history=torch.ones(())),
        dict(count_history=torch.ones(7)),
        dict(count_history=None),
        dict(max_length='long'),
        dict(max_length=float('inf')),
    ],
    ids=str,
)
def test_a_curve_that_does_not_fit_is_left_out_of_a_resumed_hub(change, tmp_path):
    scalars = dict(good=dict(CURVE), bad=CURVE | change, none=dict(log_history=1))
    hub = dict(log_scalars=scalars, runtime_info={}, resumed_keys={})
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict={}, message_hub=hub), path)
    resumed = MessageHub('resumed')
    resumed.load_state_dict(mmengine_loading.load_from_local(path)['message_hub'])
    assert list(resumed.log_scalars) == ['good']
