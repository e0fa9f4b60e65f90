"""From YAML to checked values, environments and models."""
