"""The parts of the paper's figure as modules: tower, mask extractor, projector, decoder, and Osprey itself."""
