# Data sets -> manifests -> frames -> flow, shard by shard.


def workers(wildcards):
    """ffmpeg processes or flow threads of one job: a matter of the machine, so it is no parameter."""
    return cfg.compute.extract_workers


def downloads(wildcards):
    """Archives fetched at a time."""
    return cfg.compute.download_workers


DOWNLOADED = [d for d in cfg.datasets if cfg.datasets[d].download]
# A data set that only a person can get is missed before the hours of downloading another, not after them.
GIVEN = [d for d in jobs.used_datasets(cfg) if not cfg.datasets[d].download and not cfg.datasets[d].embedded]


def annotations_present(wildcards):
    """Annotation files that the user brought: an edit of one reruns what follows.

    Those that a rule makes (embedded, downloaded, unpacked) are left out: a job's inputs must not change because it has run.
    """
    dataset = cfg.datasets[wildcards.dataset]
    if dataset.embedded:
        return []
    downloaded = [f"{at.data}/downloads/{wildcards.dataset}.json"] if dataset.download else []
    return downloaded + [str(f) for f in dataset.brought_files()]


# Runs where Snakemake runs: a cluster's compute nodes often have no network. A stopped download goes on where it was.
rule download:
    input:
        ancient([f"{at.data}/datasets/{d}.json" for d in GIVEN]),
    output:
        f"{at.data}/downloads/{{dataset}}.json",
    log:
        f"{LOGS}/download/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/download/{{dataset}}.tsv"
    wildcard_constraints:
        dataset="|".join(map(re.escape, DOWNLOADED)) or "(?!)",
    resources:
        cpus_per_task=downloads,
        mem_mb=4000,
        runtime=7 * 24 * 60,
    params:
        job=job(jobs.download_job, "dataset"),
        code=code("mscl.datasets.download", files=("mscl/datasets/sources.csv",)),
    message:
        "Downloading data set {wildcards.dataset}"
    shell:
        "python -m mscl download --job {params.job:q} --out {output:q} --workers {resources.cpus_per_task} 2>&1 | tee {log:q}"


rule dataset:
    input:
        annotations_present,
    output:
        f"{at.data}/datasets/{{dataset}}.json",
    log:
        f"{LOGS}/dataset/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/dataset/{{dataset}}.tsv"
    threads: 2
    resources:
        cpus_per_task=2,
        mem_mb=2000,
        runtime=240,
    params:
        job=job(jobs.dataset_job, "dataset"),
        code=code("mscl.datasets.prepare"),
    message:
        "Preparing data set {wildcards.dataset}"
    shell:
        "python -m mscl dataset --job {params.job:q} --out {output:q} 2>&1 | tee {log:q}"


rule manifest:
    input:
        f"{at.data}/datasets/{{dataset}}.json",
    output:
        at.manifest("{dataset}"),
    log:
        f"{LOGS}/manifest/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/manifest/{{dataset}}.tsv"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        job=job(jobs.manifest_job, "dataset"),
        code=code("mscl.datasets.manifest"),
    message:
        "Listing the videos of {wildcards.dataset}"
    shell:
        "python -m mscl manifest --job {params.job:q} --out {output:q} 2>&1 | tee {log:q}"


rule frames:
    input:
        at.manifest("{dataset}"),
    output:
        index=at.frames("{dataset}") + "/{shard}.parquet",
        tar=at.frames("{dataset}") + "/{shard}.tar",
    log:
        f"{LOGS}/frames/{{dataset}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/frames/{{dataset}}/{{shard}}.tsv"
    threads: cfg.compute.extract_workers
    resources:
        cpus_per_task=workers,
        mem_mb=4000,
        runtime=240,
    params:
        job=job(jobs.frames_job, "dataset"),
        code=code("mscl.video.extract"),
    message:
        "Extracting frames of {wildcards.dataset}, shard {wildcards.shard}"
    shell:
        "python -m mscl frames --job {params.job:q} {input:q} {wildcards.shard} --out {output.index:q}"
        " --workers {resources.cpus_per_task} 2>&1 | tee {log:q}"


rule flow:
    input:
        index=at.frames("{dataset}") + "/{shard}.parquet",
        tar=at.frames("{dataset}") + "/{shard}.tar",
    output:
        index=at.flow("{dataset}") + "/{shard}.parquet",
        tar=at.flow("{dataset}") + "/{shard}.tar",
    log:
        f"{LOGS}/flow/{{dataset}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/flow/{{dataset}}/{{shard}}.tsv"
    threads: cfg.compute.extract_workers
    resources:
        cpus_per_task=workers,
        mem_mb=8000,
        runtime=480,
        gpu=lambda wildcards: gpus() if cfg.flow.method == "raft" else 0,
    params:
        job=job(jobs.flow_job),
        code=code("mscl.flow.shard"),
    message:
        "Computing flow ({cfg.flow.method}) of {wildcards.dataset}, shard {wildcards.shard}"
    shell:
        "python -m mscl flow --job {params.job:q} {input.index:q} --out {output.index:q}"
        " --workers {resources.cpus_per_task} 2>&1 | tee {log:q}"


rule listed:
    input:
        [at.manifest(d) for d in jobs.used_datasets(cfg)],


rule extracted:
    input:
        [shards(at.frames, d) for d in jobs.used_datasets(cfg)],


rule prepared:
    input:
        [shards(at.frames, d) for d in jobs.used_datasets(cfg)],
        [shards(at.flow, d) for d in jobs.flow_datasets(cfg)],
