"""Tasks: where prompts come from and how a response is verified.

One file per task; ``conf/task/NAME.yaml`` names its class in ``_target_`` and that import path is the registry.
Nothing here may import the engine, the model or the objective.
"""
