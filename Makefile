# make demo    install, make the demo data, train on it, evaluate, draw
# make test    install, run the tests
# make test-slow  install, run those that take minutes: every hostile file, more kills
# make test-avx2  install, a short training and what depends on the processor, as on one
#              with AVX2 alone (most laptops): no AVX-512, no bfloat16, no VNNI
# make roadmap install, train the steps from ViT to iLLaMA on handwritten digits
# make pretrain-demo  install, pretrain on crops of scenes, segment with and without it
# make web     install, show the demo's model on a web page; make web MODEL=FILE_OR_DIR
# make stream-demo  install, train a model that labels rows as they arrive, an animation
# make bench   install, time attention, backbone, whole segmentors and the training step
# make check   install, check format, lint and types, run the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := work_dirs/demo
PRETRAIN := work_dirs/pretrain_demo
STREAM := work_dirs/stream_demo
SMALL := data/scenes_small
# A process for each core; the tests of a file share what is slow to make.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile
# Folders of few but long tests come first: none is left to one process at the end.
LONG_FIRST := --no-loadscope-reorder tests/tools tests/docs tests/faults tests/deploy tests

# What keeps the libraries of torch from newer instructions, and the tests that care.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
PROCESSOR_TESTS := tests/machine tests/layers tests/heads tests/backbones tests/quantization \
  tests/engine tests/benchmarks tests/deploy tests/apis/test_quantize.py \
  tests/studies/test_benchmark.py tests/apis/runs/test_overview.py tests/tools/test_doctor.py

.PHONY: demo web test test-slow test-avx2 check roadmap pretrain-demo stream-demo bench \
  install clean-demo clean-pretrain-demo clean-roadmap clean-stream-demo

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'Python 3.10 or newer is needed: make PYTHON=python3.12 ...'; exit 1; }
	@echo '== installing into $(VENV) (PyTorch takes some gigabytes)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@# A machine without a display may lack the libraries of OpenCV's windows.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  echo '== OpenCV without windows'; \
	  $(BIN)/python -m pip uninstall --quiet -y opencv-python; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    opencv-python-headless; }
	@# yapf keeps a cache that processes which start together would mix up.
	@$(BIN)/python -c 'import yapf.yapflib.yapf_api'
	@touch $@

demo: install
	@echo '== demo data: procedural scenes'
	$(BIN)/python tools/data/make_scenes.py --out data/scenes
	@echo '== training on them (a finished run is kept: make clean-demo)'
	$(BIN)/python tools/train.py configs/upernet_illama_demo.py --work-dir $(DEMO) \
	  $(if $(wildcard $(DEMO)/last_checkpoint),--resume)
	@echo '== evaluating on scenes never trained on'
	$(BIN)/python tools/analysis/report.py $(DEMO) --baselines

# The demo is trained first, where there is no run of it.
web: install $(if $(MODEL),,$(DEMO)/last_checkpoint)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,deploy]'
	$(BIN)/python tools/web.py $(or $(MODEL),$(DEMO)) \
	  $(if $(wildcard data/scenes),--examples data/scenes/images/validation)

$(DEMO)/last_checkpoint:
	$(MAKE) demo

stream-demo: install
	@echo '== demo data: procedural scenes'
	$(BIN)/python tools/data/make_scenes.py --out data/scenes
	@echo '== a model that reads rows as they arrive (a finished run is kept)'
	$(BIN)/python tools/train.py configs/queries/illama_demo_queries.py \
	  --work-dir $(STREAM) $(if $(wildcard $(STREAM)/last_checkpoint),--resume)
	@echo '== a scene, row by row'
	$(BIN)/python tools/stream.py configs/queries/illama_demo_queries.py \
	  $(STREAM)/iter_900.pth data/scenes/images/validation/scene_00000003.jpg \
	  --out $(STREAM)/streamed --animation

pretrain-demo: install
	@echo '== data: scenes to segment, crops of other scenes to classify'
	$(BIN)/python tools/data/make_scenes.py --out data/scenes
	$(BIN)/python tools/data/make_scene_crops.py --out data/scene_crops
	@echo '== what is in this crop? (finished runs are kept)'
	$(BIN)/python tools/train.py configs/pretrain/illama_micro_scenes.py \
	  --work-dir $(PRETRAIN)/classifier \
	  $(if $(wildcard $(PRETRAIN)/classifier/last_checkpoint),--resume)
	@echo '== segmentation from it and from scratch, three seeds each'
	for seed in 0 1 2; do $(MAKE) --no-print-directory \
	  $(PRETRAIN)/pretrained/$$seed/iter_240.pth \
	  $(PRETRAIN)/scratch/$$seed/iter_240.pth || exit 1; done
	$(BIN)/python tools/analysis/compare.py $(PRETRAIN)/pretrained $(PRETRAIN)/scratch \
	  --out $(PRETRAIN)

FROM_SCRATCH := model.backbone.init_cfg=None
FROM_CLASSIFIER := model.backbone.init_cfg.checkpoint=$(PRETRAIN)/classifier/epoch_12.pth

# From another classifier it is another segmentation.
$(foreach seed,0 1 2,$(PRETRAIN)/pretrained/$(seed)/iter_240.pth): \
  $(PRETRAIN)/classifier/epoch_12.pth

# An interrupted run starts anew: it is a minute or two.
$(PRETRAIN)/%/iter_240.pth:
	$(BIN)/python tools/train.py configs/upernet_illama_demo_pretrained.py \
	  --work-dir $(@D) --cfg-options randomness.seed=$(notdir $*) \
	  $(if $(filter scratch/%,$*),$(FROM_SCRATCH),$(FROM_CLASSIFIER))

clean-demo:
	rm -rf $(DEMO)

clean-pretrain-demo:
	rm -rf $(PRETRAIN)

clean-roadmap:
	rm -rf work_dirs/roadmap

clean-stream-demo:
	rm -rf $(STREAM)

test: install
	@echo '== tests'
	$(PYTEST) -m 'not slow' $(LONG_FIRST)

test-slow: install
	@echo '== the tests that take minutes'
	$(PYTEST) -m slow $(LONG_FIRST)

test-avx2: install
	@echo '== a short training with AVX2 alone: by measurement in float32'
	$(BIN)/python tools/data/make_scenes.py --out $(SMALL) \
	  --num-train 16 --num-val 2 >/dev/null
	rm -rf work_dirs/avx2
	$(AVX2) $(BIN)/python tools/train.py configs/upernet_illama_demo.py \
	  --work-dir work_dirs/avx2 --cfg-options \
	  train_dataloader.dataset.data_root=$(SMALL) \
	  val_dataloader.dataset.data_root=$(SMALL) \
	  test_dataloader.dataset.data_root=$(SMALL) \
	  train_cfg.max_iters=20 train_cfg.val_interval=20 param_scheduler.0.end=2 \
	  param_scheduler.1.begin=2 param_scheduler.1.end=20
	grep -q '^precision *float32: measured' work_dirs/avx2/*/*.log
	@echo '== the tests that depend on the processor, with AVX2 alone'
	$(AVX2) $(PYTEST) -m 'not slow' $(PROCESSOR_TESTS)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

roadmap: install
	@echo '== the steps from ViT to iLLaMA, micro size: about 20 minutes on two cores (finished runs are kept)'
	$(BIN)/python tools/analysis/roadmap.py

bench: install
	@echo '== benchmarks (more than an hour on two cores: leave the machine alone)'
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/backbone.py
	$(BIN)/python benchmarks/segmentor.py
	$(BIN)/python benchmarks/decoder.py
	$(BIN)/python benchmarks/pretrain.py
	$(BIN)/python benchmarks/guards.py
	$(BIN)/python benchmarks/threads.py
