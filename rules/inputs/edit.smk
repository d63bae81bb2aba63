"""Target vectors and edits: what the rules of edit.smk read and are told."""


def editor_settings(wildcards):
    return editor_of(wildcards).model_dump_json(exclude_none=True)


def target_spec(wildcards):
    return editor_of(wildcards).target_spec.model_dump_json()


def prefix_file(wildcards, seed):
    kinds = "-".join(editor_of(wildcards).prefixes)
    return f"results/prefixes/{wildcards.model}/seed{seed}/{kinds}.json"


def needed_prefixes(wildcards):
    return prefix_file(wildcards, wildcards.seed)


def compile_option(wildcards):
    return "--compile" if CONFIG.models[wildcards.model].compile else ""


@cache
def target_owner(method, model, dataset):
    """The first method whose target vectors are the same: ablations and sweeps share their method's."""

    def spec(name):
        settings = editor(name, model, dataset)
        return settings.dtype, settings.prefixes, settings.target_spec

    used = {method, *(name for *where, name in cells() if where == [model, dataset])}
    return next(
        name for name in CONFIG.methods if name in used and spec(name) == spec(method)
    )


def target_shards(wildcards):
    """All shards of a method's target vectors; none for a method without."""
    if editor_of(wildcards).target_spec is None:
        return []
    values = dict(wildcards)
    values["method"] = target_owner(
        wildcards.method, wildcards.model, wildcards.dataset
    )
    return expand(
        "results/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.safetensors",
        **values,
        shard=range(CONFIG.editing.shards),
    )


def needed_covariance(wildcards):
    if not editor_of(wildcards).covariances:
        return []
    return f"results/covariance/{wildcards.model}.safetensors"


def covariance_option(wildcards, input):
    return option("covariance", input.covariance)


def needed_hypernetwork(wildcards):
    if not editor_of(wildcards).trained:
        return []
    return f"results/hypernetworks/{wildcards.model}/{wildcards.method}.safetensors"


def hypernetwork_option(wildcards, input):
    return option("hypernetwork", input.hypernetwork)


def edit_code(wildcards):
    """Digest of the code of an edit: the stage's and the method's own file."""
    return code_digest(
        "jeep.stages.edit:edit", f"jeep.editors.{editor_name(wildcards)}"
    )
