# Data sets -> manifests -> frames -> flow, shard by shard.


FRAMES, FLOW = at.frames("{dataset}"), at.flow("{dataset}")
DOWNLOADED = [d for d in cfg.datasets if cfg.datasets[d].download]
# A data set that only a person can get is missed before the hours of downloading another, not after them.
GIVEN = [d for d in jobs.used_datasets(cfg) if not cfg.datasets[d].download and not cfg.datasets[d].embedded]


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
    localrule: True
    conda:
        "../envs/mscl.yaml"
    resources:
        cpus_per_task=downloads,
        mem_mb=4000,
        runtime=7 * 24 * 60,
    params:
        *settings(jobs.download_job, "dataset"),
        *code("mscl.datasets.acquire.download", files=("mscl/datasets/acquire/sources.csv",)),
        job=job(jobs.download_job, "dataset"),
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
    conda:
        "../envs/mscl.yaml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem_mb=2000,
        runtime=240,
    params:
        *settings(jobs.dataset_job, "dataset"),
        *code("mscl.datasets.prepare"),
        job=job(jobs.dataset_job, "dataset"),
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
    conda:
        "../envs/mscl.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *settings(jobs.manifest_job, "dataset"),
        *code("mscl.datasets.manifest"),
        job=job(jobs.manifest_job, "dataset"),
    message:
        "Listing the videos of {wildcards.dataset}"
    shell:
        "python -m mscl manifest --job {params.job:q} --out {output:q} 2>&1 | tee {log:q}"


rule frames:
    input:
        at.manifest("{dataset}"),
    output:
        index=f"{FRAMES}/{{shard}}.parquet",
        tar=f"{FRAMES}/{{shard}}.tar",
    log:
        f"{LOGS}/frames/{{dataset}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/frames/{{dataset}}/{{shard}}.tsv"
    conda:
        "../envs/mscl.yaml"
    threads: cfg.compute.extract_workers
    resources:
        cpus_per_task=workers,
        mem_mb=4000,
        runtime=240,
    params:
        *settings(jobs.frames_job, "dataset"),
        *code("mscl.video.extract"),
        job=job(jobs.frames_job, "dataset"),
    message:
        "Extracting frames of {wildcards.dataset}, shard {wildcards.shard}"
    shell:
        "python -m mscl frames --job {params.job:q} {input:q} {wildcards.shard} --out {output.index:q}"
        " --workers {resources.cpus_per_task} 2>&1 | tee {log:q}"


rule flow:
    input:
        index=f"{FRAMES}/{{shard}}.parquet",
        tar=f"{FRAMES}/{{shard}}.tar",
        weights=raft_weights,
    output:
        index=f"{FLOW}/{{shard}}.parquet",
        tar=f"{FLOW}/{{shard}}.tar",
    log:
        f"{LOGS}/flow/{{dataset}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/flow/{{dataset}}/{{shard}}.tsv"
    conda:
        "../envs/mscl.yaml"
    threads: cfg.compute.extract_workers
    resources:
        cpus_per_task=workers,
        mem_mb=8000,
        runtime=480,
        gpu=flow_gpus,
    params:
        *settings(jobs.flow_job),
        *code("mscl.flow.shard"),
        job=job(jobs.flow_job),
    message:
        f"Computing flow ({cfg.flow.method}) of {{wildcards.dataset}}, shard {{wildcards.shard}}"
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
