"""A config: edited by the command line, and described (task, backbone, data set, metric)."""
