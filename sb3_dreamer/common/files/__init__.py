"""Files of JSON and safetensors, written whole or not at all; no pickle."""
