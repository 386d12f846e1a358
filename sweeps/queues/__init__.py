"""Queues, which run jobs on this machine or on Slurm; the configuration group ``launcher`` chooses one."""
