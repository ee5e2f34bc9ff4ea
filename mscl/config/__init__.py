"""The typed, validated configuration, and the tables of methods, backbones, data-set formats and measures."""
