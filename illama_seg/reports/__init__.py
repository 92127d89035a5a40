"""Reports of trainings and of data sets: images, JSON files, one HTML page.

A name is imported when it is first used; ``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
