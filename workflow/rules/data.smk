# Data sets -> manifests -> frames -> flow, shard by shard.


GIVEN = [at.dataset(d) for d in build.given_datasets(cfg)]


# A local rule: compute nodes of a cluster often have no network. An interrupted download is resumed.
rule download:
    input:
        ancient(GIVEN),  # a missing data set that the user must provide is reported before hours of downloading
    output:
        **stage.makes("download"),
    log:
        stage.log("download"),
    benchmark:
        stage.benchmark("download")
    wildcard_constraints:
        dataset=one_of(d for d in cfg.datasets if cfg.datasets[d].download),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        cpus_per_task=cfg.compute.download_workers,
        mem_mb=stage.memory("download"),
        runtime=stage.runtime("download"),
    params:
        *stage.settings("download"),
        *stage.code("download"),
        job=stage.job("download"),
        label=stage.label("download"),
    message:
        "Downloading data set {wildcards.dataset}"
    shell:
        "python -m mscl download --job {params.job:q} --out {output.list:q} --workers {resources.cpus_per_task} 2>&1 | keep {log:q} {params.label:q}"


rule dataset:
    input:
        unpack(stage.reads("dataset")),
    output:
        **stage.makes("dataset"),
    log:
        stage.log("dataset"),
    benchmark:
        stage.benchmark("dataset")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        cpus_per_task=2,
        mem_mb=stage.memory("dataset"),
        runtime=stage.runtime("dataset"),
    params:
        *stage.settings("dataset"),
        *stage.code("dataset"),
        job=stage.job("dataset"),
        label=stage.label("dataset"),
    message:
        "Preparing data set {wildcards.dataset}"
    shell:
        "python -m mscl dataset --job {params.job:q} --out {output.list:q} 2>&1 | keep {log:q} {params.label:q}"


rule manifest:
    input:
        unpack(stage.reads("manifest")),
    output:
        **stage.makes("manifest"),
    log:
        stage.log("manifest"),
    benchmark:
        stage.benchmark("manifest")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=stage.memory("manifest"),
        runtime=stage.runtime("manifest"),
    params:
        *stage.settings("manifest"),
        *stage.code("manifest"),
        job=stage.job("manifest"),
        label=stage.label("manifest"),
    message:
        "Writing the manifest of {wildcards.dataset}"
    shell:
        "python -m mscl manifest --job {params.job:q} --out {output.manifest:q} 2>&1 | keep {log:q} {params.label:q}"


rule frames:
    input:
        unpack(stage.reads("frames")),
    output:
        **stage.makes("frames"),
    log:
        stage.log("frames"),
    benchmark:
        stage.benchmark("frames")
    conda:
        ENVIRONMENT
    threads: cfg.compute.extract_workers
    resources:
        cpus_per_task=cfg.compute.extract_workers,
        mem_mb=stage.memory("frames"),
        runtime=stage.runtime("frames"),
    params:
        *stage.settings("frames"),
        *stage.code("frames"),
        job=stage.job("frames"),
        label=stage.label("frames"),
    message:
        "Extracting frames of {wildcards.dataset}, shard {wildcards.shard}"
    shell:
        "python -m mscl frames --job {params.job:q} {input.manifest:q} {wildcards.shard} --out {output.index:q}"
        " --workers {resources.cpus_per_task} 2>&1 | keep {log:q} {params.label:q}"


rule flow:
    input:
        unpack(stage.reads("flow")),
    output:
        **stage.makes("flow"),
    log:
        stage.log("flow"),
    benchmark:
        stage.benchmark("flow")
    conda:
        ENVIRONMENT
    threads: cfg.compute.extract_workers
    resources:
        cpus_per_task=cfg.compute.extract_workers,
        mem_mb=stage.memory("flow"),
        runtime=stage.runtime("flow"),
        gpu=flow_gpus,
    params:
        *stage.settings("flow"),
        *stage.code("flow"),
        job=stage.job("flow"),
        label=stage.label("flow"),
    message:
        f"Computing flow ({cfg.flow.method}) of {{wildcards.dataset}}, shard {{wildcards.shard}}"
    shell:
        "python -m mscl flow --job {params.job:q} {input.index:q} --out {output.index:q}"
        " --workers {resources.cpus_per_task} 2>&1 | keep {log:q} {params.label:q}"


# Targets of DVC: all data sets (dvc.yaml), and each alone (experiments/, whose data sets may be shared).


rule listed:
    input:
        made_by("manifest"),


rule extracted:
    input:
        made_by("frames"),


rule prepared:
    input:
        made_by("frames", "flow"),


for one in build.used_datasets(cfg):

    rule:
        name:
            f"listed_{one}"
        input:
            made_by("manifest", dataset=one),

    rule:
        name:
            f"extracted_{one}"
        input:
            made_by("frames", dataset=one),

    rule:
        name:
            f"prepared_{one}"
        input:
            made_by("frames", "flow", dataset=one),
