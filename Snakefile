"""Joint knowledge editing (JEEP): from models, facts and Wikipedia text to the paper's tables."""

from snakemake.utils import min_version

min_version("9.10")


report: "report/run.rst"


# A configuration file given on the command line replaces the default; Snakemake would merge the two.
if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"


# With --software-deployment-method apptainer, jobs run in this image (docs/cluster.md).
container: os.path.relpath(Path(workflow.basedir) / "jeep.sif")


include: "rules/resources.smk"
include: "rules/sources.smk"
include: "rules/prepare.smk"
include: "rules/covariance.smk"
include: "rules/probe.smk"
include: "rules/edit.smk"
include: "rules/evaluate.smk"
include: "rules/sequence.smk"
include: "rules/damage.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/tune.smk"
include: "rules/regions.smk"


localrules:
    all,
    large,
    quick,
    probe,
    placement,
    tradeoff_curves,
    long_sequence,
    tune,


rule all:
    """Every artifact of the experiment."""
    default_target: True
    input:
        artifact_files(),


rule quick:
    """A first table, minutes after the downloads: a few methods on one data set. `all` goes on from it."""
    input:
        ["results/quick.csv"] if QUICK else [],


rule probe:
    """Figures 1, 2 and 5, proposed regions, and what MLPs and attention contribute."""
    input:
        [f"{path}.pdf" for path in probe_figures()],


rule large:
    """The main methods with all facts of the evaluation split: hours."""
    input:
        large_files(),


rule placement:
    """Do regions that the probe proposes edit better than others, and those that leak less? On development facts."""
    input:
        placement_figures(),
        leak_cost_figures(),


rule tradeoff_curves:
    """Efficacy against locality along settings of JEEP and of its variants."""
    input:
        ["results/figures/tradeoff.pdf"] if TRADEOFF else [],


rule long_sequence:
    """Batch after batch, many more than in the experiment: an hour or more."""
    input:
        long_sequence_files(),


rule tune:
    """The hyper-parameter search for the small models, on development facts: hours."""
    input:
        "results/tuning/searches.csv",
