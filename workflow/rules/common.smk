import re

from snakemake.exceptions import WorkflowError

from diffmbrl import config as configuration
from diffmbrl.errors import UserError
from diffmbrl.pipeline.captions import Provenance
from diffmbrl.pipeline.workflow import Pipeline, begin, papers

try:
    workflow_config = configuration.load(".", config)
    begin()
except UserError as error:
    raise WorkflowError(str(error)) from None

diffmbrl = Pipeline(workflow_config)
stage = diffmbrl.stage
PAPERS = papers(workflow_config)
TARGETS = {}
config["provenance"] = Provenance()  # for captions
JOB = (
    f"--threads {{threads}} --device {workflow_config['device']} "
    "--log {log} --settings {params:q}"
)
PICTURE = ("pdf", "png")


wildcard_constraints:
    scale="|".join(workflow_config["scales"]),


def shown(path, label):
    """A file that the report shows, under its paper; its caption tells what made it."""
    paper = path.split("/{scale}/")[1].split("/")[0]
    return report(
        path,
        caption="../report/result.rst",
        category=paper,
        labels={"scale": "{scale}", "result": label},
    )


def figure(path):
    """The named outputs of a figure's rule; the report shows the picture."""
    pdf, png = (f"figures/{{scale}}/{path}.{kind}" for kind in PICTURE)
    return {"pdf": pdf, "png": shown(png, path.split("/")[-1])}


def outputs_of(*prefixes, but=()):
    """Patterns of every output of the rules whose names start so, but those of some."""
    found = [
        r for r in workflow.rules if r.name.startswith(prefixes) and r.name not in but
    ]
    return [re.sub(r"{(\w+),[^}]*}", r"{\1}", str(o)) for r in found for o in r.output]
