"""A web page on which trained models segment images."""

from illama_seg.web.models import ShownModel, open_models
from illama_seg.web.page import build_page, serve

__all__ = ['ShownModel', 'build_page', 'open_models', 'serve']
