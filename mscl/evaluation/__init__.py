"""Measures on finished models: top-k, confusing pairs, linear probe, retrieval, GradCAM."""
