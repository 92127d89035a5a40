"""Weights & Biases without a copy of the working directory."""

from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import WandbVisBackend


@VISBACKENDS.register_module()
class ConfigWandbVisBackend(WandbVisBackend):
    """mmengine's backend, but of the code it keeps the config only.

    mmengine's also copies every .py file below the working directory into the run,
    which takes minutes where that holds a virtual environment.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config."""
        # The first use of `experiment` starts the run.
        self.experiment.config.update(config.to_dict(), allow_val_change=True)
