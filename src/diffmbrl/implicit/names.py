"""Names that tables of the studies use and figures read."""

PUBLISHED, ALL = "as published", "all states"  # data of a coverage run
PARTS = ("trained", "untrained", "featureless")  # of a residual
CHOOSERS = ("true discount", "held out", "spectrum")  # rules for choosing eta
WAY = "implicit"  # the parameterization whose eta is chosen
