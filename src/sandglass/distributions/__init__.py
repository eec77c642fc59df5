"""Likelihoods, priors and posteriors: modules whose forward returns a ``torch.distributions.Distribution``."""
