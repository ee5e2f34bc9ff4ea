# Pretraining, finetuning, and tests of the frozen features: method x model x seed.


RUN = ("{model}", "{method}", "{seed}")
PRETRAIN, FINETUNE, FROZEN = at.pretrain(*RUN), at.finetune(*RUN), at.frozen(*RUN)


rule pretrain:
    input:
        pretraining_data,
    output:
        weights=f"{PRETRAIN}/weights.safetensors",
        history=f"{PRETRAIN}/history.csv",
        card=f"{at.records(PRETRAIN)}/run.json",
    log:
        f"{LOGS}/pretrain/{{model}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain/{{model}}/{{method}}/seed{{seed}}.tsv"
    conda:
        "../envs/mscl.yaml"
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
        *settings(jobs.pretrain_job, "model", "method", "seed"),
        *method_code("mscl.training.pretrain"),
        job=job(jobs.pretrain_job, "model", "method", "seed"),
        out=folder,
        curves=f"{CURVES}/pretrain/{{model}}/{{method}}/seed{{seed}}",
        records=records,
    message:
        "Pretraining {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl pretrain --job {params.job:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --curves {params.curves:q} 2>&1 | tee -a {log:q}"


rule finetune:
    input:
        weights=pretrained_weights,
        manifest=at.manifest(at.target),
        frames=shards(at.frames, at.target),
        tars=shards(at.frames, at.target, ".tar"),
    output:
        weights=f"{FINETUNE}/weights.safetensors",
        predictions=f"{FINETUNE}/predictions.parquet",
        metrics=f"{FINETUNE}/metrics.json",
        history=f"{FINETUNE}/history.csv",
        card=f"{at.records(FINETUNE)}/run.json",
    log:
        f"{LOGS}/finetune/{{model}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/finetune/{{model}}/{{method}}/seed{{seed}}.tsv"
    conda:
        "../envs/mscl.yaml"
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
        *settings(jobs.finetune_job, "model", "method", "seed"),
        *code("mscl.training.finetune"),
        job=job(jobs.finetune_job, "model", "method", "seed"),
        out=folder,
        curves=f"{CURVES}/finetune/{{model}}/{{method}}/seed{{seed}}",
        records=records,
        weights=weights_option,
    message:
        "Finetuning {wildcards.model} from {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl finetune --job {params.job:q} {params.weights:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --curves {params.curves:q} 2>&1 | tee -a {log:q}"


rule frozen:
    input:
        weights=pretrained_weights,
        manifest=at.manifest(at.target),
        frames=shards(at.frames, at.target),
        tars=shards(at.frames, at.target, ".tar"),
    output:
        metrics=f"{FROZEN}/metrics.json",
        card=f"{at.records(FROZEN)}/run.json",
    log:
        f"{LOGS}/frozen/{{model}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/frozen/{{model}}/{{method}}/seed{{seed}}.tsv"
    conda:
        "../envs/mscl.yaml"
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads + cfg.compute.workers,
        workers=loader,
        mem_mb=16000,
        runtime=240,
        gpu=gpus,
    params:
        *settings(jobs.frozen_job, "model", "method", "seed"),
        *code("mscl.evaluation.frozen"),
        job=job(jobs.frozen_job, "model", "method", "seed"),
        out=folder,
        records=records,
        weights=weights_option,
    message:
        "Probe and retrieval on {wildcards.model} from {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl frozen --job {params.job:q} {params.weights:q} --out {params.out:q} --records {params.records:q}"
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
