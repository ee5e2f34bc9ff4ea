# Data health, flow error, confused pairs, GradCAM, and the report.
COMPARED = list(dict.fromkeys(jobs.compared(cfg)))
EXACT = [d for d in jobs.flow_datasets(cfg) if cfg.datasets[d].embedded][:1]  # its exact flow is known


rule data_health:
    input:
        [shards(at.frames, d) + [at.manifest(d)] for d in jobs.used_datasets(cfg)],
        [shards(at.flow, d) for d in jobs.flow_datasets(cfg)],
    output:
        f"{at.results}/data.json",
    log:
        f"{LOGS}/data.log",
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        job=job(jobs.data_job),
        code=code("mscl.datasets.health"),
    message:
        "Counting usable and unusable videos"
    shell:
        "python -m mscl data --job {params.job:q} --out {output:q} 2>&1 | tee {log:q}"


if EXACT:

    rule flow_error:
        input:
            shards(at.flow, EXACT[0]),
            shards(at.flow, EXACT[0], ".tar"),
        output:
            at.flow_error(),
        log:
            f"{LOGS}/flow_error.log",
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            job=lambda wildcards: jobs.dumps(jobs.flow_error_job(cfg, EXACT[0])),
            code=code("mscl.flow.error"),
        message:
            "Comparing stored flow with the renderer's exact flow"
        shell:
            "python -m mscl flow-error --job {params.job:q} --out {output:q} 2>&1 | tee {log:q}"


rule analysis:
    input:
        lambda w: [
            f"{at.finetune(w.model, m, s)}/{f}"
            for m in COMPARED
            for s in SEEDS
            for f in ("predictions.parquet", "weights.safetensors")
        ],
        manifest=at.manifest(at.target),
        frames=shards(at.frames, at.target),
        tars=shards(at.frames, at.target, ".tar"),
    output:
        pairs=at.analysis("{model}") + "/pairs.csv",
        gradcam=at.analysis("{model}") + "/gradcam.json",
        card=at.records(at.analysis("{model}")) + "/run.json",
    log:
        f"{LOGS}/analysis/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/analysis/{{model}}.tsv"
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads,
        mem_mb=8000,
        runtime=120,
        gpu=gpus,
    params:
        job=job(jobs.analysis_job, "model"),
        code=code("mscl.evaluation.analysis"),
        finetuned=f"{at.results}/finetune/{at.target}/{{model}}",
        out=at.analysis("{model}"),
        records=at.records(at.analysis("{model}")),
    message:
        "Confused pairs and GradCAM of {wildcards.model}"
    shell:
        "python -m mscl analysis --job {params.job:q} {params.finetuned:q} --out {params.out:q} --records {params.records:q} 2>&1 | tee {log:q}"


rule report:
    input:
        rules.pretrained.input,
        rules.evaluated.input,
        [f"{at.analysis(m)}/{f}" for m in MODELS for f in ("pairs.csv", "gradcam.json")],
        data=rules.data_health.output[0],
        flow_error=rules.flow_error.output[0] if EXACT else [],
    output:
        html=report(
            f"{at.report()}/index.html",
            caption="../report/index.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/report.log",
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        job=lambda wildcards: jobs.dumps(jobs.ReportJob(config=cfg)),
        code=code(
            "mscl.reporting.report",
            files=(
                "mscl/reporting/published.csv",
                "mscl/reporting/templates/report.html.j2",
            ),
        ),
        out=at.report(),
    message:
        "Writing the report"
    shell:
        "python -m mscl report --job {params.job:q} --out {params.out:q} 2>&1 | tee {log:q}"
