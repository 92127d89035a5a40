"""Commands, paths, links and Python of the README and of docs/ are of what exists."""

import argparse
import re
import shlex
from inspect import signature
from urllib.parse import unquote

import pytest
from mmengine.runner import Runner
from pages import NAMES, PAGES, ROOT, blocks, calls, prose, section
from tiny_run import run_tool

from illama_seg.apis import get_config, load_config, parse_cfg_options
from illama_seg.reports.sections import SECTIONS

TEXTS = {name: page.read_text() for name, page in zip(NAMES, PAGES, strict=True)}
MADE = {block.file for text in TEXTS.values() for block in blocks(text)} - {''}
every_page = pytest.mark.parametrize('name', NAMES)


def slug(heading):
    """What the forges make of a heading for a link to it."""
    text = re.sub(r'\[(.*?)\]\(.*?\)', r'\1', heading).lower()
    return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


@every_page
def test_every_path_of_a_page_exists(name):
    for path in set(re.findall(r'\b(?:tools|configs|benchmarks)/[\w./]+', TEXTS[name])):
        path = path.rstrip('.')
        assert (ROOT / path).exists() or path in MADE, path


@every_page
def test_every_relative_link_and_picture_of_a_page_exists(name):
    for target in re.findall(r'\]\(([^)]+)\)', prose(TEXTS[name])):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = unquote(target).partition('#')
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r'^#+ (.*)$', prose(file.read_text()), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_the_readme_leads_to_the_index_and_the_index_to_every_page():
    assert '](docs/index.md)' in TEXTS['README.md']
    linked = re.findall(r'\]\(([\w/.]+\.md)\)', TEXTS['docs/index.md'])
    listed = {f'docs/{target}'.replace('docs/../', '') for target in linked}
    assert set(NAMES) - {'README.md', 'docs/index.md'} == listed


@every_page
def test_every_make_target_of_a_page_exists(name):
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'(?:^|`)make ([\w-]+)', TEXTS[name], re.MULTILINE):
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_the_readme_has_the_targets_that_a_newcomer_runs():
    for target in ('demo', 'test', 'check', 'roadmap', 'pretrain-demo', 'bench'):
        assert f'make {target}' in TEXTS['README.md']


# Commands

CALLS = sorted({call.strip() for text in TEXTS.values() for call in calls(text)})


class Parsed(Exception):
    """Ends a tool once it has understood its arguments."""


def understood(call, monkeypatch):
    """Arguments of a command as the tool's own parser reads them."""
    call = re.sub(r'"\$\(.*?\)/\.mim/(\S+)"', r'\1', call)
    call = call.replace('[FOLDER_OR_ZIP]', 'FOLDER').replace('...', '')
    words = shlex.split(call, comments=True)
    at = next(i for i, word in enumerate(words) if word.endswith(('.py', '.sh')))
    tool, arguments = words[at], words[at + 1 :]
    if 'slurm_' in tool:  # PARTITION JOB_NAME CONFIG
        del arguments[:2]
    elif tool.endswith('.sh'):  # CONFIG [CHECKPOINT] NUM_GPUS
        number = 2 if 'test' in tool else 1
        assert arguments.pop(number).isdigit()
    tool = re.sub(r'(dist|slurm)_(\w+)\.sh', r'\2.py', tool)
    assert (ROOT / tool).is_file()
    monkeypatch.syspath_prepend((ROOT / tool).parent)
    real = argparse.ArgumentParser.parse_args

    def parse(parser, *args):
        raise Parsed(real(parser, *args))

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse)
    with pytest.raises(Parsed) as ended:
        run_tool(f'../{tool.removesuffix(".py")}', *arguments)
    return ended.value.args[0]


@pytest.mark.parametrize('call', CALLS, ids=lambda call: ' '.join(call.split())[:70])
def test_a_command_is_understood_and_its_options_fit_the_config(call, monkeypatch):
    arguments = understood(call, monkeypatch)
    config = getattr(arguments, 'config', None)
    if config is None or config == 'CONFIG' or config in MADE:
        return
    options = parse_cfg_options(getattr(arguments, 'cfg_options', None))
    plain = load_config(config if '/' in config else get_config(config).filename)
    for key in options:
        parent = plain.to_dict()
        # A config may leave out what the Runner has a default for, such as the seed.
        assert key.split('.')[0] in {**parent, **signature(Runner).parameters}, key
        for part in key.split('.')[:-1]:
            # {}: a dict that the option itself begins, such as an init_cfg.
            parent = parent[int(part)] if part.isdigit() else parent.get(part, {})
        assert isinstance(parent, dict | list), key
    load_config(plain.filename, options)


@pytest.mark.parametrize(
    'section', [s for s in SECTIONS if s.command], ids=lambda section: section.title
)
def test_a_command_of_the_reports_page_is_understood(section, monkeypatch):
    names = dict(config='CONFIG', checkpoint='CHECKPOINT', run='work_dirs/run')
    understood(section.command.format(**names), monkeypatch)


@pytest.mark.parametrize(
    'options',
    re.findall(r'^\| .* \| `(\w+\..*=.*)` \|$', TEXTS['docs/train_on_ade20k.md'], re.M),
)
def test_an_override_of_the_table_fits_the_config(options, monkeypatch):
    config = 'configs/upernet_illama_base_ade20k.py'
    call = f'python tools/train.py {config} --cfg-options {options}'
    test_a_command_is_understood_and_its_options_fit_the_config(call, monkeypatch)


def test_a_command_that_is_not_understood_fails(monkeypatch):
    for call in (
        'python tools/train.py configs/upernet_illama_demo.py --nonsense',
        'python tools/test.py configs/upernet_illama_demo.py',
        'tools/dist_train.sh configs/upernet_illama_demo.py --amp',
    ):
        with pytest.raises((SystemExit, AssertionError)):
            understood(call, monkeypatch)


def test_imagenet_is_trained_and_tested_by_commands_of_the_page():
    text = section(TEXTS['docs/pretraining.md'], 'Pretraining')
    assert {'tools/dist_train.sh', 'tools/train.py', 'tools/test.py'} <= {
        word for call in calls(text) for word in call.split()
    }
    assert 'configs/pretrain/illama_tiny_in1k.py' in text


# Python

PYTHON = [
    pytest.param(block.text, id=f'{name}-{number}')
    for name, text in TEXTS.items()
    for number, block in enumerate(blocks(text))
    if block.language == 'python'
]


@pytest.mark.parametrize('code', PYTHON)
def test_python_of_a_page_compiles(code):
    compile(code, 'the page', 'exec')


def executed(code, **replaced):
    """Run a block, after changing what is not at hand; each change must be one."""
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    names: dict = {}
    exec(code, names)
    return names


def block_of(name, text):
    """The one block of Python of a page that has this in it."""
    (found,) = (b.text for b in blocks(TEXTS[name]) if text in b.text)
    return found


@pytest.mark.parametrize('name', ['README.md', 'docs/python.md'])
def test_models_by_name_run(name):
    code = block_of(name, 'get_model(')
    names = executed(code, **{'pretrained=True': 'pretrained=False'})
    assert names['model'].backbone.embed_dims == 192


def test_the_backbone_alone_runs():
    code = block_of('docs/python.md', 'MODELS.build')
    (line,) = re.findall(r'\n\s+init_cfg=.*', code)  # the released file
    names = executed(code, **{line: ''})
    assert [tuple(f.shape) for f in names['features']] == [(1, 192, 32, 21)] * 4


def test_timms_models_run():
    names = executed(block_of('docs/python.md', 'create_model'))
    assert names['model'].num_classes == 1000
    assert names['maps'].feature_info.channels() == [192] * 4


def test_mmsegs_inference_runs(run, tmp_path):
    (image, *_) = sorted((run.data / 'images' / 'validation').glob('*.jpg'))
    replaced = {
        'configs/upernet_illama_demo.py': run.config,
        'work_dirs/demo/iter_720.pth': run.checkpoint,
        'data/scenes/images/validation/scene_00000001.jpg': image,
        'work_dirs/demo/scene.png': tmp_path / 'scene.png',
    }
    code = block_of('docs/python.md', 'inference_model')
    executed(code, **{old: str(new) for old, new in replaced.items()})
    assert (tmp_path / 'scene.png').is_file()


def test_images_of_any_kind_are_predicted(run):
    (image, *_) = sorted((run.data / 'images' / 'validation').glob('*.jpg'))
    replaced = {
        'configs/upernet_illama_demo.py': run.config,
        'work_dirs/demo/iter_720.pth': run.checkpoint,
        'data/scenes/images/validation/scene_00000001.jpg': image,
    }
    code = block_of('docs/python.md', 'predict(')
    names = executed(code, **{old: str(new) for old, new in replaced.items()})
    assert [found.shape for found in names['several']] == [names['labels'].shape] * 3


def test_the_page_shows_the_settings_of_a_test_without_annotations():
    (call,) = (call for call in CALLS if 'format_only' in call)
    for key in ('data_prefix.seg_map_path=None', 'test_evaluator.output_dir='):
        assert key in call
