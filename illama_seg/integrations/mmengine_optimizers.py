"""Import transformers for mmengine's optimiser ``Adafactor`` only where it is built.

mmengine imports it at every start, and transformers imports peft and torchao where they
are installed: seconds.
"""

import importlib.util
import sys
from typing import Any

_LIBRARY = 'transformers'


def defer_transformers() -> None:
    """Import mmengine's optimisers without transformers, and register Adafactor's name.

    Changes nothing where transformers or mmengine's optimisers are imported already.
    """
    imported = {_LIBRARY, 'mmengine.optim'} & set(sys.modules)
    if imported or importlib.util.find_spec(_LIBRARY) is None:
        return
    sys.modules[_LIBRARY] = None  # type: ignore[assignment]
    try:
        import mmengine.optim  # noqa: F401
    finally:
        del sys.modules[_LIBRARY]
    from mmengine.registry import OPTIMIZERS

    OPTIMIZERS.register_module(name='Adafactor', module=_adafactor)


def _adafactor(params: Any, **options: Any) -> Any:
    from transformers import Adafactor

    return Adafactor(params, **options)
