"""The default search on trained models that nobody here trained: ``python -m benchmarks.strangers``.

They come from the package registry when the benchmark runs, pinned by hash, and are never shipped: the terrain
consistency U-Net of adaptive-terrain-diffusion (MIT) and two galaxy score nets of galaxygrad (no licence stated). Each
is quantised by this project's quantiser, sampled in few steps by its samplers, and calibrated twice: freely, and with
the 8-bit twin as the reference as the node does it. Scores are what can be measured there, see ``scores``.

Needs, in an environment of its own: ``pip install onnx onnx2torch brisque opencv-python-headless scikit-image
libsvm-official``.
"""
