"""Original and new answers, and sets of words, through the layers: Figures 1, 2 and 5, and regions to edit."""


def probe_facts(wildcards):
    return f"results/facts/{wildcards.model}/{PROBE.dataset}.jsonl"


def probe_field(name):
    return getattr(PROBE, name) if PROBE else ""


def retrieval_field(name):
    return getattr(PROBE.retrieval, name) if PROBE else ""


norm_option = "" if PROBE and PROBE.norm else "--no-norm"
candidates = PROBE.fact_lists.candidates if PROBE else 0


def search_index(wildcards):
    return f"results/search/{PROBE.retrieval.backend}"


def index_memory(wildcards, input, attempt):
    return needs.retrieval(os.stat(input.corpus).st_size, PROBE.retrieval.backend, attempt)


def knowledge_base(wildcards):
    """The folder with the demo's triples, where factual words come from there."""
    return "results/demo" if PROBE.fact_lists.source.kind == "knowledge-base" else []


def triples_option(wildcards, input):
    return f"--triples {input.demo}/triples.jsonl" if input.demo else ""


def fact_source(wildcards):
    return source_json(PROBE.fact_lists.source)


def probe_title(wildcards):
    lens = "logit lens with" if PROBE.norm else "logit lens without"
    what = f"{PROBE.prompts} prompts of {label_of('datasets', PROBE.dataset)}"
    return f"{label_of('models', wildcards.model)}, {what}, {lens} final norm"


def prompt_title(wildcards):
    return f"{label_of('models', wildcards.model)}, fact {PROBE.example} of {label_of('datasets', PROBE.dataset)}"


def words_title(wildcards):
    source = PROBE.fact_lists.source
    lists = "a knowledge base" if source.kind == "knowledge-base" else source.model
    return f"{probe_title(wildcards)}; factual words from {lists}"


def edited_regions(wildcards):
    """The layers that the experiment's methods edit on a model, by method and data set."""
    layers = {
        f"{method}/{dataset}": sorted({layer for layer, _ in PLAN.editor(method, model, dataset).covariances})
        for model, dataset, method in PLAN.cells
        if model == wildcards.model and method in PLAN.compared.methods and method != UNEDITED
    }
    return json.dumps({name: found for name, found in layers.items() if found})


def probe_figures():
    """The probes' figures, without their extensions."""
    return [
        f"results/figures/{figure}-{model}"
        for figure in ("figure1", "figure2", "contributions", "figure5")
        for model in (PROBE.models if PROBE else [])
    ]


rule probe_contrast:
    """IN: a model, facts. OUT: probability and rank of both answers at every layer, a row for each."""
    input:
        model="results/models/{model}",
        facts=probe_facts,
    output:
        "results/probe/{model}/contrast.parquet",
    log:
        "logs/probe_contrast/{model}.log",
    benchmark:
        "results/benchmarks/probe_contrast/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.read),
        runtime=runtime(),
    params:
        options=model_options,
        limit=probe_field("prompts"),
        norm=norm_option,
        code=stage_code("probe:probe_contrast"),
    shell:
        "python -m jeep probe-contrast --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --limit {params.limit} {params.norm} --out {output:q} 2> >(tee {log:q} >&2)"


rule probe_prompt:
    """IN: a model, facts. OUT: the original answer at every token and layer of one prompt."""
    input:
        model="results/models/{model}",
        facts=probe_facts,
    output:
        "results/probe/{model}/prompt.csv",
    log:
        "logs/probe_prompt/{model}.log",
    benchmark:
        "results/benchmarks/probe_prompt/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.read),
        runtime=runtime(),
    params:
        options=model_options,
        number=probe_field("example"),
        norm=norm_option,
        code=stage_code("probe:probe_prompt"),
    shell:
        "python -m jeep probe-prompt --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --number {params.number} {params.norm} --out {output:q} 2> >(tee {log:q} >&2)"


rule regions:
    """IN: the contrast of both answers. OUT: regions proposed by a rule, beside those that are edited."""
    input:
        "results/probe/{model}/contrast.parquet",
    output:
        "results/probe/{model}/regions.json",
    log:
        "logs/regions/{model}.log",
    benchmark:
        "results/benchmarks/regions/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        low=probe_field("low"),
        high=probe_field("high"),
        edited=edited_regions,
        code=stage_code("probe:regions"),
    shell:
        "python -m jeep regions --contrast {input:q} --low {params.low} --high {params.high}"
        " --edited {params.edited:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule search_index:
    """IN: Wikipedia text. OUT: a search index of its paragraphs."""
    input:
        corpus="results/corpus/wikipedia.jsonl",
    output:
        directory("results/search/{backend}"),
    log:
        "logs/search_index/{backend}.log",
    benchmark:
        "results/benchmarks/search_index/{backend}.tsv"
    wildcard_constraints:
        backend="rank-bm25|bm25s",
    conda:
        "../envs/jeep.yaml"
    resources:
        mem_mb=index_memory,
        runtime=runtime(least=durations.LONG),
    params:
        code=stage_code("probe:search_index"),
    shell:
        "python -m jeep search-index --corpus {input.corpus:q} --backend {wildcards.backend}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule related_words:
    """IN: facts, a search index. OUT: the words of the paragraphs about each fact's subject."""
    input:
        facts=probe_facts,
        index=search_index,
        corpus=ancient("results/corpus/wikipedia.jsonl"),
    output:
        "results/probe/{model}/related.jsonl",
    log:
        "logs/related_words/{model}.log",
    benchmark:
        "results/benchmarks/related_words/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        mem_mb=index_memory,
        runtime=runtime(least=durations.LONG),
    params:
        limit=probe_field("prompts"),
        backend=retrieval_field("backend"),
        paragraphs=retrieval_field("paragraphs"),
        code=stage_code("probe:related_words"),
    shell:
        "python -m jeep related-words --facts {input.facts:q} --limit {params.limit} --index {input.index:q}"
        " --backend {params.backend} --paragraphs {params.paragraphs} --out {output:q} 2> >(tee {log:q} >&2)"


rule fact_lists:
    """IN: facts, a knowledge base or a language model. OUT: candidates for each subject and each relation."""
    input:
        facts=probe_facts,
        demo=knowledge_base,
    output:
        "results/probe/{model}/facts.jsonl",
    log:
        "logs/fact_lists/{model}.log",
    benchmark:
        "results/benchmarks/fact_lists/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        limit=probe_field("prompts"),
        source=fact_source,
        triples=triples_option,
        candidates=candidates,
        seed=CONFIG.seeds[0],
        code=stage_code("probe:fact_lists"),
    shell:
        "python -m jeep fact-lists --facts {input.facts:q} --limit {params.limit} --source {params.source:q}"
        " {params.triples} --candidates {params.candidates} --seed {params.seed}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule probe_words:
    """IN: a model, facts, related words, fact lists. OUT: probability and rank of word sets; their common tokens."""
    input:
        model="results/models/{model}",
        facts=probe_facts,
        related="results/probe/{model}/related.jsonl",
        lists="results/probe/{model}/facts.jsonl",
    output:
        table="results/probe/{model}/words.parquet",
        overlaps="results/probe/{model}/overlaps.parquet",
    log:
        "logs/probe_words/{model}.log",
    benchmark:
        "results/benchmarks/probe_words/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.read),
        runtime=runtime(),
    params:
        options=model_options,
        limit=probe_field("prompts"),
        norm=norm_option,
        code=stage_code("probe:probe_words"),
    shell:
        "python -m jeep probe-words --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --limit {params.limit} --related {input.related:q} --lists {input.lists:q} {params.norm}"
        " --overlaps {output.overlaps:q} --out {output.table:q} 2> >(tee {log:q} >&2)"


rule prompt_figure:
    """IN: one prompt's flow. OUT: Figure 1."""
    input:
        "results/probe/{model}/prompt.csv",
    output:
        pdf="results/figures/figure1-{model}.pdf",
        png=report(
            "results/figures/figure1-{model}.png",
            caption="../report/figure1.rst",
            category="Figures",
        ),
    log:
        "logs/prompt_figure/{model}.log",
    benchmark:
        "results/benchmarks/prompt_figure/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        title=prompt_title,
        code=stage_code("probe:prompt_figure"),
    shell:
        "python -m jeep prompt-figure --table {input:q} --title {params.title:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule contrast_figure:
    """IN: the contrast of both answers, regions. OUT: Figure 2."""
    input:
        table="results/probe/{model}/contrast.parquet",
        regions="results/probe/{model}/regions.json",
    output:
        pdf="results/figures/figure2-{model}.pdf",
        png=report(
            "results/figures/figure2-{model}.png",
            caption="../report/figure2.rst",
            category="Figures",
        ),
    log:
        "logs/contrast_figure/{model}.log",
    benchmark:
        "results/benchmarks/contrast_figure/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        title=probe_title,
        code=stage_code("probe:contrast_figure"),
    shell:
        "python -m jeep contrast-figure --table {input.table:q} --regions {input.regions:q} --title {params.title:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule contributions_figure:
    """IN: the contrast of both answers. OUT: what each block's MLP and attention add to them."""
    input:
        "results/probe/{model}/contrast.parquet",
    output:
        pdf="results/figures/contributions-{model}.pdf",
        png=report(
            "results/figures/contributions-{model}.png",
            caption="../report/contributions.rst",
            category="Figures",
        ),
    log:
        "logs/contributions_figure/{model}.log",
    benchmark:
        "results/benchmarks/contributions_figure/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        title=probe_title,
        code=stage_code("probe:contributions_figure"),
    shell:
        "python -m jeep contributions-figure --table {input:q} --title {params.title:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule words_figure:
    """IN: probability and rank of word sets. OUT: Figure 5."""
    input:
        "results/probe/{model}/words.parquet",
    output:
        pdf="results/figures/figure5-{model}.pdf",
        png=report(
            "results/figures/figure5-{model}.png",
            caption="../report/figure5.rst",
            category="Figures",
        ),
    log:
        "logs/words_figure/{model}.log",
    benchmark:
        "results/benchmarks/words_figure/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        title=words_title,
        code=stage_code("probe:words_figure"),
    shell:
        "python -m jeep words-figure --table {input:q} --title {params.title:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"
