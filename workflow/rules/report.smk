# Data health, flow error, confused pairs, GradCAM, and the report.


rule data_health:
    input:
        unpack(stage.reads("data_health")),
    output:
        **stage.makes("data_health"),
    log:
        stage.log("data_health"),
    benchmark:
        stage.benchmark("data_health")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=stage.memory("data_health"),
        runtime=stage.runtime("data_health"),
    params:
        *stage.settings("data_health"),
        *stage.code("data_health"),
        job=stage.job("data_health"),
        label=stage.label("data_health"),
    message:
        "Counting videos by status"
    shell:
        "python -m mscl data --job {params.job:q} --out {output.data:q} 2>&1 | keep {log:q} {params.label:q}"


if build.exact_flow_datasets(cfg):

    rule flow_error:
        input:
            unpack(stage.reads("flow_error")),
        output:
            **stage.makes("flow_error"),
        log:
            stage.log("flow_error"),
        benchmark:
            stage.benchmark("flow_error")
        conda:
            ENVIRONMENT
        resources:
            mem_mb=stage.memory("flow_error"),
            runtime=stage.runtime("flow_error"),
        params:
            *stage.settings("flow_error"),
            *stage.code("flow_error"),
            job=stage.job("flow_error"),
            label=stage.label("flow_error"),
        message:
            "Comparing the stored flow with the exact flow"
        shell:
            "python -m mscl flow-error --job {params.job:q} --out {output.flow_error:q} 2>&1 | keep {log:q} {params.label:q}"


ANALYSIS = stage.makes("analysis")


rule analysis:
    input:
        unpack(stage.reads("analysis")),
    output:
        pairs=report(ANALYSIS["pairs"], caption="../report/pairs.rst", category="Analysis"),
        gradcam=ANALYSIS["gradcam"],
        card=ANALYSIS["card"],
        figures=report(
            directory(ANALYSIS["figures"]), patterns=["{figure}.png"], caption="../report/gradcam.rst", category="Analysis"
        ),
    log:
        stage.log("analysis"),
    benchmark:
        stage.benchmark("analysis")
    conda:
        ENVIRONMENT
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads,
        mem_mb=stage.memory("analysis"),
        runtime=stage.runtime("analysis"),
        gpu=gpus,
    params:
        *stage.settings("analysis"),
        *stage.code("analysis"),
        job=stage.job("analysis"),
        label=stage.label("analysis"),
        out=stage.folder("analysis"),
        records=stage.records("analysis"),
    message:
        "Confused pairs and GradCAM of {wildcards.model} on {wildcards.target}"
    shell:
        "python -m mscl analysis --job {params.job:q} --out {params.out:q} --records {params.records:q} 2>&1 | keep {log:q} {params.label:q}"


CURVES = [*finetuning_curves(cfg).values(), *linear_curves(cfg).values(), *(["pretrain_loss"] if cfg.pretrained_methods else [])]


rule report:
    input:
        unpack(stage.reads("report")),
    output:
        html=report(stage.makes("report")["html"], caption="../report/index.rst", category="Report"),
        tables=report(
            [f"{at.report()}/tables/{t}.csv" for t in ("table1", "table2", "table3")],
            caption="../report/tables.rst",
            category="Tables",
        ),
        data=report(
            [f"{at.report()}/tables/{t}.csv" for t in ("data", "unusable")],
            caption="../report/data.rst",
            category="Tables",
        ),
        curves=report(
            [f"{at.report()}/figures/{c}.png" for c in CURVES],
            caption="../report/curves.rst",
            category="Training",
        ),
    log:
        stage.log("report"),
    benchmark:
        stage.benchmark("report")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=stage.memory("report"),
        runtime=stage.runtime("report"),
    params:
        *stage.settings("report"),
        *stage.code("report"),
        job=stage.job("report"),
        label=stage.label("report"),
        out=folder,
    message:
        "Writing the report"
    shell:
        "python -m mscl report --job {params.job:q} --out {params.out:q} 2>&1 | keep {log:q} {params.label:q}"
