# Pretraining, finetuning, and tests of the frozen features: method x model x seed.


def pretraining_data(wildcards):
    """Manifests and shards of the pretraining data; flow only for a method that looks at it."""
    looks_at_flow = cfg.switches(wildcards.method).flow
    found = []
    for dataset in cfg.pretrain.datasets:
        found.append(at.manifest(dataset))
        for store in (at.frames, at.flow) if looks_at_flow else (at.frames,):
            found += shards(store, dataset) + shards(store, dataset, ".tar")
    if cfg.pretrain.monitor:
        watched = cfg.pretrain.monitor.dataset
        found += [at.manifest(watched), *shards(at.frames, watched), *shards(at.frames, watched, ".tar")]
    return list(dict.fromkeys(found))


def pretrained_weights(wildcards):
    """None for a method without pretraining."""
    if not cfg.switches(wildcards.method).pretrain:
        return []
    return at.pretrain(wildcards.model, wildcards.method, wildcards.seed) + "/weights.safetensors"


def checkpoint_minutes(wildcards):
    return cfg.compute.checkpoint_minutes


def processes(wildcards):
    """Processes, one per GPU, that share a batch: like the number of loaders, a matter of the machine."""
    return cfg.compute.processes


def training_cpus(wildcards):
    return cfg.compute.processes * (cfg.compute.threads + cfg.compute.workers)


def training_gpus(wildcards):
    return gpus(processes=cfg.compute.processes)


RUN = ("{model}", "{method}", "{seed}")


rule pretrain:
    input:
        pretraining_data,
    output:
        weights=at.pretrain(*RUN) + "/weights.safetensors",
        history=at.pretrain(*RUN) + "/history.csv",
        card=at.pretrain(*RUN) + "/run.json",
    log:
        f"{LOGS}/pretrain/{{model}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain/{{model}}/{{method}}/seed{{seed}}.tsv"
    threads: cfg.compute.threads * cfg.compute.processes
    resources:
        cpus_per_task=training_cpus,
        workers=loader,
        processes=processes,
        checkpoint_minutes=checkpoint_minutes,
        mem_mb=16000,
        runtime=2880,
        gpu=training_gpus,
    params:
        job=job(jobs.pretrain_job, "model", "method", "seed"),
        code=code("mscl.training.pretrain"),
        out=at.pretrain(*RUN),
    message:
        "Pretraining {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl pretrain --job {params.job:q} --out {params.out:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} 2>&1 | tee -a {log:q}"


rule finetune:
    input:
        weights=pretrained_weights,
        manifest=at.manifest(at.target),
        frames=shards(at.frames, at.target),
        tars=shards(at.frames, at.target, ".tar"),
    output:
        weights=at.finetune(*RUN) + "/weights.safetensors",
        predictions=at.finetune(*RUN) + "/predictions.parquet",
        metrics=at.finetune(*RUN) + "/metrics.json",
        history=at.finetune(*RUN) + "/history.csv",
        card=at.finetune(*RUN) + "/run.json",
    log:
        f"{LOGS}/finetune/{{model}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/finetune/{{model}}/{{method}}/seed{{seed}}.tsv"
    threads: cfg.compute.threads * cfg.compute.processes
    resources:
        cpus_per_task=training_cpus,
        workers=loader,
        processes=processes,
        checkpoint_minutes=checkpoint_minutes,
        mem_mb=16000,
        runtime=1440,
        gpu=training_gpus,
    params:
        job=job(jobs.finetune_job, "model", "method", "seed"),
        code=code("mscl.training.finetune"),
        out=at.finetune(*RUN),
        weights=lambda wildcards, input: ["--weights", input.weights] if input.weights else [],
    message:
        "Finetuning {wildcards.model} from {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl finetune --job {params.job:q} {params.weights:q} --out {params.out:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} 2>&1 | tee -a {log:q}"


rule frozen:
    input:
        weights=pretrained_weights,
        manifest=at.manifest(at.target),
        frames=shards(at.frames, at.target),
        tars=shards(at.frames, at.target, ".tar"),
    output:
        metrics=at.frozen(*RUN) + "/metrics.json",
        card=at.frozen(*RUN) + "/run.json",
    log:
        f"{LOGS}/frozen/{{model}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/frozen/{{model}}/{{method}}/seed{{seed}}.tsv"
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads + cfg.compute.workers,
        workers=loader,
        mem_mb=16000,
        runtime=240,
        gpu=gpus,
    params:
        job=job(jobs.frozen_job, "model", "method", "seed"),
        code=code("mscl.evaluation.frozen"),
        out=at.frozen(*RUN),
        weights=lambda wildcards, input: ["--weights", input.weights] if input.weights else [],
    message:
        "Probe and retrieval on {wildcards.model} from {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl frozen --job {params.job:q} {params.weights:q} --out {params.out:q}"
        " --workers {resources.workers} 2>&1 | tee {log:q}"


rule pretrained:
    input:
        [
            f"{at.pretrain(m, n, s)}/weights.safetensors"
            for m in MODELS
            for n in METHODS
            for s in SEEDS
            if cfg.switches(n).pretrain
        ],


rule evaluated:
    input:
        [f"{at.finetune(m, n, s)}/metrics.json" for m in MODELS for n in METHODS for s in SEEDS],
        [f"{at.frozen(m, n, s)}/metrics.json" for m in MODELS for n in METHODS for s in SEEDS if cfg.analysis.probe],
