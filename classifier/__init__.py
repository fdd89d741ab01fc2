"""Train, evaluate and export the model that `triton_models/prompt_classifier` serves."""
