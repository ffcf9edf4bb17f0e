"""GGUF, the file format of llama.cpp: models in and out."""
