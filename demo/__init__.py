"""The drawn world: pictures with ground truth, and two small models that are trained on them.

scenes/           draws the pictures and states what is true of them
truth/            scenes with true field values as export versions: replay data and the frozen base set
training/         trains the two small models
checkpoints/      the trained models, with a model card each
small_models.py   where these checkpoints are
"""
