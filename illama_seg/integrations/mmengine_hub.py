"""Let ``mmengine.hub.get_config('illama_seg::FOLDER/CONFIG.py')`` find the configs."""

from mmengine.config.utils import MODULE2PACKAGE

MODULE2PACKAGE.setdefault('illama_seg', 'illama_seg')
