"""Joint knowledge editing (JEEP): from models, facts and Wikipedia text to the paper's tables."""

from snakemake.utils import min_version

min_version("9.10")


# A configuration file given on the command line replaces the default; Snakemake would merge the two.
if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/inputs/prepare.smk"
include: "rules/inputs/edit.smk"
include: "rules/inputs/evaluate.smk"
include: "rules/inputs/probe.smk"
include: "rules/inputs/artifacts.smk"
include: "rules/inputs/tune.smk"
include: "rules/prepare.smk"
include: "rules/probe.smk"
include: "rules/edit.smk"
include: "rules/evaluate.smk"
include: "rules/artifacts.smk"
include: "rules/tune.smk"


localrules:
    all,
    probe,
    tune,


rule all:
    """Every artifact of the experiment."""
    default_target: True
    input:
        artifact_files(),


rule probe:
    """Figures 1, 2 and 5, and proposed regions."""
    input:
        probe_files(),


rule tune:
    """The hyper-parameter search for the small models, on development facts."""
    input:
        tuning_files(),
