"""The workflow's stages: what each is, reads, makes and is called with."""
