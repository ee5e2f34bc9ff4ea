"""The stages of the workflow: their settings, inputs, outputs, code and run cards."""
