"""Settings that runs of one table share: data, crop, length and inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from illama_seg.apis.configs import load_config
from illama_seg.errors import UserError

Protocol = dict[str, str]


def protocol_of(cfg: Config) -> Protocol:
    """Return the settings that decide whether scores of two runs compare."""
    train: Any = cfg.get('train_dataloader') or {}
    val: Any = cfg.get('val_dataloader') or {}
    loop: Any = cfg.get('train_cfg') or {}
    model: Any = cfg.model
    wrapper: Any = cfg.get('optim_wrapper') or {}
    updates = wrapper.get('accumulative_counts', 1)
    length = (loop.get(f'max_{unit}') for unit in ('iters', 'epochs'))
    crop = (model.get('data_preprocessor') or {}).get('size')
    inference = {k: v for k, v in (model.get('test_cfg') or {}).items() if v}
    return {
        'training data': _data(train),
        'validation data': _data(val),
        'crop': _text(crop),
        'iterations': ' or '.join(f'{n}' for n in length if n is not None) or '-',
        'batch': f'{train.get("batch_size")}' + (f' x {updates}' * (updates > 1)),
        'inference': ', '.join(f'{k} {_text(v)}' for k, v in inference.items()) or '-',
    }


def differences(protocols: Mapping[str, Protocol]) -> dict[str, dict[str, str]]:
    """Return the settings that are not the same in all runs.

    Args:
        protocols: name of a run -> its protocol.

    Returns:
        Setting -> name of a run -> value.
    """
    keys = dict.fromkeys(key for protocol in protocols.values() for key in protocol)
    found = {
        key: {name: protocol.get(key, '-') for name, protocol in protocols.items()}
        for key in keys
    }
    return {key: values for key, values in found.items() if len({*values.values()}) > 1}


def as_lines(found: Mapping[str, Mapping[str, str]]) -> str:
    """Write differences as text, a line for each setting."""
    return '\n'.join(
        f'{key}: ' + ', '.join(f'{name} {value}' for name, value in values.items())
        for key, values in found.items()
    )


def protocols_in(groups: Mapping[str, list[Path]]) -> dict[str, Protocol]:
    """Return the protocol of the first run of each group that has kept its config."""
    found: dict[str, Protocol] = {}
    for name, runs in groups.items():
        configs = [path for run in runs for path in sorted(run.glob('*.py'))]
        try:
            found[name] = protocol_of(load_config(configs[0]))
        except (UserError, OSError, IndexError):
            continue
    return found


def _data(loader: Any) -> str:
    """Name the images of a loader, whatever wraps their data set."""
    dataset: Any = loader.get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if dataset.get('datasets'):  # joined
        parts = dataset['datasets']
        return ' and '.join(_data(dict(dataset=part)) for part in parts)
    parts = [dataset.get('type'), dataset.get('data_root')]
    parts += [(dataset.get('data_prefix') or {}).get('img_path')]
    parts += [dataset.get('ann_file'), dataset.get('indices')]
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes:
        parts.append(f'{len(classes)} classes')
    return ' '.join(str(part) for part in parts if part)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return 'x'.join(map(str, value))
    return str(value)
