"""How much each group's loss rises when its weights or activations get a format: estimates."""
