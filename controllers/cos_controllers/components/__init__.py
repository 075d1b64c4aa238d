"""The engines. One folder each; `registry` lists them. Engines never import each other."""
