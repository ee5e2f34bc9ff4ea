"""Evaluation of trained models: measures of the frozen features, confusing pairs, GradCAM."""
