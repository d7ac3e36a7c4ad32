"""One text on every machine: the engine's step and sampler on emulated processors, compared with this one."""
