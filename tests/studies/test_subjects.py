import numpy as np
import pytest
import timm
import torch
from tiny_classifier import CONFIG, OPTIONS, build, save
from tiny_run import ROOT

from illama_seg.apis import load_config
from illama_seg.studies import build_classifier

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
TIMM = 'vit_tiny_patch16_224'
SMALL = dict(embed_dim=24, depth=1, num_heads=3)


@pytest.fixture
def cfg():
    return load_config(CONFIG, OPTIONS)


@pytest.fixture
def small_timm(monkeypatch):
    """timm.create_model makes a small one."""
    real = timm.create_model
    monkeypatch.setattr(
        timm, 'create_model', lambda name, **options: real(name, **options, **SMALL)
    )
    return lambda classes: timm.create_model(TIMM, num_classes=classes)


def test_a_checkpoint_gives_the_logits_of_its_model(cfg, tmp_path):
    model = build()
    model.head.fc.weight.data.mul_(50)
    path = save(model, tmp_path / 'run' / 'best.pth', classes='abcdefghij')
    classifier = build_classifier(cfg, path, 'cpu')
    assert (classifier.name, classifier.num_classes) == ('run/best', 10)
    assert classifier.classes == tuple('abcdefghij')
    loaded = [classifier.load(dict(img=image)) for image in (IMAGE, 255 - IMAGE)]
    logits = classifier.logits(loaded)
    samples = model.test_step(dict(inputs=loaded))
    expected = torch.stack([sample.pred_score for sample in samples])
    torch.testing.assert_close(logits.softmax(1), expected)
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_without_names_in_the_file_they_are_the_data_sets(cfg, tmp_path):
    torch.save(build().state_dict(), tmp_path / 'weights.pth')
    classifier = build_classifier(cfg, tmp_path / 'weights.pth', 'cpu')
    assert classifier.classes == tuple('0123456789')


def test_timms_model_has_its_own_preprocessing(cfg, small_timm, tmp_path):
    model = small_timm(10).eval()
    torch.save(model.state_dict(), tmp_path / 'vit.pth')
    source = f'timm:{TIMM}={tmp_path / "vit.pth"}'
    classifier = build_classifier(cfg, source, 'cpu')
    image = classifier.load(dict(img=np.full((300, 300, 3), 255, np.uint8)))
    assert classifier.name == TIMM and image.shape == (3, 224, 224)
    # White, by the mean and deviation of 0.5 that timm has for this model.
    torch.testing.assert_close(image, torch.ones(3, 224, 224))
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits([image]), model(image[None]))


def test_timms_model_is_random_only_where_it_is_asked_for(cfg, small_timm, monkeypatch):
    classifier = build_classifier(cfg, f'timm:{TIMM}=random', 'cpu')
    assert classifier.name == f'{TIMM} (random weights)'

    def offline(*args, **options):
        raise OSError('no route to host\nlong')

    monkeypatch.setattr('timm.models._builder.load_pretrained', offline)
    with pytest.raises(ConnectionError, match=rf'timm:{TIMM} to be .*: no route to ho'):
        build_classifier(cfg, f'timm:{TIMM}', 'cpu')


def test_timms_model_of_other_classes_is_refused(
    cfg, small_timm, monkeypatch, tmp_path
):
    torch.save(small_timm(7).state_dict(), tmp_path / 'seven.pth')
    source = f'timm:{TIMM}={tmp_path / "seven.pth"}'
    with pytest.raises(ValueError, match=r'seven.pth does not fit .* with 10 classes'):
        build_classifier(cfg, source, 'cpu')
    monkeypatch.setattr('timm.models._builder.load_pretrained', lambda *a, **k: None)
    with pytest.raises(ValueError, match='has 1000 classes, the config 10'):
        build_classifier(cfg, f'timm:{TIMM}', 'cpu')


def test_our_own_model_by_timms_name_keeps_its_classifier_or_is_refused(cfg, tmp_path):
    name = 'illama_tiny_patch16_224'
    for classes in (10, 7):
        model = timm.create_model(name, num_classes=classes).eval()
        path = tmp_path / f'{classes}.pth'
        torch.save(dict(model=model.state_dict()), path)
        source = f'timm:{name}={path}'
        if classes == 10:
            classifier = build_classifier(cfg, source, 'cpu')
            image = torch.randn(3, 224, 224)
            with torch.no_grad():
                expected = model(image[None])
            torch.testing.assert_close(classifier.logits([image]), expected)
        else:
            with pytest.raises(ValueError, match='has 7 classes, the config 10'):
                build_classifier(cfg, source, 'cpu')


@pytest.mark.parametrize('source', ['random', f'timm:{TIMM}=random'])
def test_random_weights_are_those_of_the_seed(source, small_timm, tmp_path):
    weights = []
    for seed in (0, 0, 1):
        options = OPTIONS | {'randomness.seed': seed}
        state = torch.get_rng_state()
        classifier = build_classifier(load_config(CONFIG, options), source, 'cpu')
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        weights.append(classifier.module.state_dict())
    first, again, other = ({k: v for k, v in w.items() if v.std() > 0} for w in weights)
    assert len(first) > 4
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_random_weights_of_a_config_are_its_own_initial_ones(cfg):
    classifier = build_classifier(cfg, 'random', 'cpu')
    assert classifier.name == 'illama_micro_digits (random weights)'
    weights = classifier.module.state_dict()
    assert weights['backbone.pos_embed'].std() == pytest.approx(0.02, rel=0.2)
    assert not weights['backbone.blocks.0.attn.qkv.bias'].any()


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), 'w')


@pytest.mark.parametrize('prefix', ['', f'timm:{TIMM}='])
def test_a_file_that_runs_code_is_refused_and_does_not_run(prefix, cfg, tmp_path):
    path = tmp_path / 'attack.pth'
    torch.save(dict(state_dict=Attack(tmp_path / 'executed')), path)
    with pytest.raises(ValueError, match=r'attack.pth was refused'):
        build_classifier(cfg, f'{prefix}{path}', 'cpu')
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize(
    ('source', 'error', 'text'),
    [
        ('none.pth', FileNotFoundError, 'none.pth'),
        ('timm:vit_tiny_patch16_224=none.pth', FileNotFoundError, 'none.pth'),
        ('timm:convnet_base', ValueError, "no model 'convnet_base'; .* convnext_base"),
    ],
)
def test_what_is_not_there_is_named(source, error, text, cfg):
    with pytest.raises(error, match=text):
        build_classifier(cfg, source, 'cpu')


def test_a_segmentation_and_a_device_that_is_not_there_are_refused(cfg):
    segmentation = load_config(ROOT / 'configs' / 'upernet_illama_demo.py')
    with pytest.raises(ValueError, match=r'upernet_illama_demo.py has no model.head'):
        build_classifier(segmentation, 'a.pth', 'cpu')
    with pytest.raises(ValueError, match=r'cuda:99.: cannot be used'):
        build_classifier(cfg, 'a.pth', 'cuda:99')
