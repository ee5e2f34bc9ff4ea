"""The acceptance run of a GPU: is the arithmetic right, how fast is it, and what does a whole run cost?

    python -m benchmarks.gpu [--minutes 20] [--out benchmarks] [--config config/paper.yaml] [--only checks steps]

It needs what training needs and no more (the first group of dependencies in pyproject.toml: no Snakemake, DVC, decord, captum, ffmpeg),
so that it runs in a plain CUDA image from a checkout of this repository. It writes `<date>-gpu.md`, a report to read, and
`<date>-gpu.json`, rates that `mscl plan --rates` reads. Every section has a share of the minutes; one that fails is reported
with its reason, and the others go on. Without a GPU it runs on the CPU at tiny sizes, which tests the program and measures nothing.
"""
