# Data health, flow error, confused pairs, GradCAM, and the report.
COMPARED = list(dict.fromkeys(jobs.compared(cfg)))
ANALYSIS = at.analysis("{model}")
EXACT = [d for d in jobs.flow_datasets(cfg) if cfg.datasets[d].embedded][:1]  # its exact flow is known


rule data_health:
    input:
        [shards(at.frames, d) + [at.manifest(d)] for d in jobs.used_datasets(cfg)],
        [shards(at.flow, d) for d in jobs.flow_datasets(cfg)],
    output:
        f"{at.results}/data.json",
    log:
        f"{LOGS}/data.log",
    benchmark:
        f"{BENCHMARKS}/data_health.tsv"
    conda:
        "../envs/mscl.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *settings(jobs.data_job),
        *code("mscl.datasets.health"),
        job=job(jobs.data_job),
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
        benchmark:
            f"{BENCHMARKS}/flow_error.tsv"
        conda:
            "../envs/mscl.yaml"
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            *settings(exact_flow_job),
            *code("mscl.flow.error"),
            job=job(exact_flow_job),
        message:
            "Comparing stored flow with the renderer's exact flow"
        shell:
            "python -m mscl flow-error --job {params.job:q} --out {output:q} 2>&1 | tee {log:q}"


rule analysis:
    input:
        compared_runs,
        manifest=at.manifest(at.target),
        frames=shards(at.frames, at.target),
        tars=shards(at.frames, at.target, ".tar"),
    output:
        pairs=report(f"{ANALYSIS}/pairs.csv", caption="../report/pairs.rst", category="Analysis"),
        gradcam=f"{ANALYSIS}/gradcam.json",
        card=f"{at.records(ANALYSIS)}/run.json",
        figures=report(
            directory(f"{ANALYSIS}/gradcam"), patterns=["{figure}.png"], caption="../report/gradcam.rst", category="Analysis"
        ),
    log:
        f"{LOGS}/analysis/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/analysis/{{model}}.tsv"
    conda:
        "../envs/mscl.yaml"
    threads: cfg.compute.threads
    resources:
        cpus_per_task=cfg.compute.threads,
        mem_mb=8000,
        runtime=120,
        gpu=gpus,
    params:
        *settings(jobs.analysis_job, "model"),
        *code("mscl.evaluation.analysis"),
        job=job(jobs.analysis_job, "model"),
        finetuned=f"{at.results}/finetune/{at.target}/{{model}}",
        out=folder,
        records=records,
    message:
        "Confused pairs and GradCAM of {wildcards.model}"
    shell:
        "python -m mscl analysis --job {params.job:q} {params.finetuned:q} --out {params.out:q} --records {params.records:q} 2>&1 | tee {log:q}"


PRETRAINS = any(cfg.switches(m).pretrain for m in METHODS)
CURVES_DRAWN = ["finetune_top1", *(["pretrain_loss"] if PRETRAINS else [])]


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
            [f"{at.report()}/figures/{c}.png" for c in CURVES_DRAWN],
            caption="../report/curves.rst",
            category="Training",
        ),
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{BENCHMARKS}/report.tsv"
    conda:
        "../envs/mscl.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *settings(jobs.report_job),
        *code(
            "mscl.reporting.report",
            files=(
                "mscl/reporting/published.csv",
                "mscl/reporting/templates/report.html.j2",
            ),
        ),
        job=job(jobs.report_job),
        out=folder,
    message:
        "Writing the report"
    shell:
        "python -m mscl report --job {params.job:q} --out {params.out:q} 2>&1 | tee {log:q}"
