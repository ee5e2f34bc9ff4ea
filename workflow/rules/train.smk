# Others' weights, pretraining, finetuning, and tests of the frozen features: method x model x seed.


rule adopt:
    input:
        unpack(stage.reads("adopt")),
    output:
        **stage.makes("adopt"),
    log:
        stage.log("adopt"),
    benchmark:
        stage.benchmark("adopt")
    priority: 1  # a file that does not fit ends the workflow before hours of training
    conda:
        ENVIRONMENT
    resources:
        mem_mb=stage.memory("adopt"),
        runtime=stage.runtime("adopt"),
    params:
        *stage.settings("adopt"),
        *stage.code("adopt"),
        job=stage.job("adopt"),
        label=stage.label("adopt"),
        out=stage.folder("adopt"),
        records=stage.records("adopt"),
    message:
        "Taking others' weights for {wildcards.model}: {wildcards.method}"
    shell:
        "python -m mscl adopt --job {params.job:q} --out {params.out:q} --records {params.records:q} 2>&1 | keep {log:q} {params.label:q}"


rule pretrain:
    input:
        unpack(stage.reads("pretrain")),
    output:
        **stage.makes("pretrain"),
    log:
        stage.log("pretrain"),
    benchmark:
        stage.benchmark("pretrain")
    conda:
        ENVIRONMENT
    threads: lambda wildcards: cfg.compute.threads * pretraining_processes(wildcards)
    resources:
        cpus_per_task=pretraining_cpus,
        workers=cfg.compute.workers,
        processes=pretraining_processes,
        checkpoint_minutes=cfg.compute.checkpoint_minutes,
        mem_mb=stage.memory("pretrain"),
        runtime=stage.runtime("pretrain"),
        gpu=pretraining_gpus,
    params:
        *stage.settings("pretrain"),
        *stage.code("pretrain"),
        job=stage.job("pretrain"),
        label=stage.label("pretrain"),
        out=stage.folder("pretrain"),
        records=stage.records("pretrain"),
        curves=stage.curves("pretrain"),
    message:
        "Pretraining {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m mscl pretrain --job {params.job:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --curves {params.curves:q} 2>&1 | keep {log:q} {params.label:q}"


rule finetune:
    input:
        unpack(stage.reads("finetune")),
    output:
        **stage.makes("finetune"),
    log:
        stage.log("finetune"),
    benchmark:
        stage.benchmark("finetune")
    conda:
        ENVIRONMENT
    threads: cfg.compute.threads * cfg.compute.processes
    resources:
        cpus_per_task=cpus_of(cfg.compute.processes),
        workers=cfg.compute.workers,
        processes=cfg.compute.processes,
        checkpoint_minutes=cfg.compute.checkpoint_minutes,
        mem_mb=stage.memory("finetune"),
        runtime=stage.runtime("finetune"),
        gpu=finetuning_gpus,
    params:
        *stage.settings("finetune"),
        *stage.code("finetune"),
        job=stage.job("finetune"),
        label=stage.label("finetune"),
        out=stage.folder("finetune"),
        records=stage.records("finetune"),
        curves=stage.curves("finetune"),
    message:
        "Finetuning {wildcards.model} from {wildcards.method} on {wildcards.target}, seed {wildcards.seed}"
    shell:
        "python -m mscl finetune --job {params.job:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --curves {params.curves:q} 2>&1 | keep {log:q} {params.label:q}"


rule linear:
    input:
        unpack(stage.reads("linear")),
    output:
        **stage.makes("linear"),
    log:
        stage.log("linear"),
    benchmark:
        stage.benchmark("linear")
    conda:
        ENVIRONMENT
    threads: cfg.compute.threads * cfg.compute.processes
    resources:
        cpus_per_task=cpus_of(cfg.compute.processes),
        workers=cfg.compute.workers,
        processes=cfg.compute.processes,
        checkpoint_minutes=cfg.compute.checkpoint_minutes,
        mem_mb=stage.memory("linear"),
        runtime=stage.runtime("linear"),
        gpu=finetuning_gpus,
    params:
        *stage.settings("linear"),
        *stage.code("linear"),
        job=stage.job("linear"),
        label=stage.label("linear"),
        out=stage.folder("linear"),
        records=stage.records("linear"),
        curves=stage.curves("linear"),
    message:
        "Linear evaluation of {wildcards.model} from {wildcards.method} on {wildcards.target}, seed {wildcards.seed}"
    shell:
        "python -m mscl linear --job {params.job:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} --processes {resources.processes}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --curves {params.curves:q} 2>&1 | keep {log:q} {params.label:q}"


rule embed:
    input:
        unpack(stage.reads("embed")),
    output:
        **stage.makes("embed"),
    log:
        stage.log("embed"),
    benchmark:
        stage.benchmark("embed")
    conda:
        ENVIRONMENT
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads + cfg.compute.workers,
        workers=cfg.compute.workers,
        mem_mb=stage.memory("embed"),
        runtime=stage.runtime("embed"),
        gpu=gpus,
    params:
        *stage.settings("embed"),
        *stage.code("embed"),
        job=stage.job("embed"),
        label=stage.label("embed"),
        out=stage.folder("embed"),
        records=stage.records("embed"),
    message:
        "Extracting frozen features of {wildcards.model} from {wildcards.method} on {wildcards.target}, seed {wildcards.seed}"
    shell:
        "python -m mscl embed --job {params.job:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} 2>&1 | keep {log:q} {params.label:q}"


rule frozen:
    input:
        unpack(stage.reads("frozen")),
    output:
        **stage.makes("frozen"),
    log:
        stage.log("frozen"),
    benchmark:
        stage.benchmark("frozen")
    conda:
        ENVIRONMENT
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads + cfg.compute.workers,
        workers=cfg.compute.workers,
        mem_mb=stage.memory("frozen"),
        runtime=stage.runtime("frozen"),
        gpu=frozen_gpus,
    params:
        *stage.settings("frozen"),
        *stage.code("frozen"),
        job=stage.job("frozen"),
        label=stage.label("frozen"),
        out=stage.folder("frozen"),
        records=stage.records("frozen"),
    message:
        "Evaluating frozen features of {wildcards.model} from {wildcards.method} on {wildcards.target}, seed {wildcards.seed}"
    shell:
        "python -m mscl frozen --job {params.job:q} --out {params.out:q} --records {params.records:q}"
        " --workers {resources.workers} 2>&1 | keep {log:q} {params.label:q}"


rule pretrained:
    input:
        made_by("adopt", "pretrain"),


rule evaluated:
    input:
        made_by("finetune", "linear", "frozen"),
