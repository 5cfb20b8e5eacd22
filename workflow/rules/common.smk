from snakemake.exceptions import WorkflowError

from diffmbrl import config as configuration
from diffmbrl.errors import ConfigError
from diffmbrl.pipeline.workflow import Workflow, papers

try:
    workflow_config = configuration.load(".", config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

diffmbrl = Workflow(workflow_config)
stage = diffmbrl.stage
PAPERS = papers(workflow_config)
TARGETS = {}
JOB = f"--threads {{threads}} --device {workflow_config['device']} --log {{log}} --settings {{params:q}}"
PICTURE = ("pdf", "png")


wildcard_constraints:
    scale="smoke|laptop|paper",


def figure(path):
    """The named outputs of a figure's rule."""
    return {kind: f"figures/{{scale}}/{path}.{kind}" for kind in PICTURE}
